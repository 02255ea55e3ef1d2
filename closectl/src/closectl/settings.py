"""CLOSECTL_* environment variables: where the system is. Each command needs only some of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from closeflow.settings import HttpUrl, ServiceSettings


class ClosectlSettings(ServiceSettings):
    """What is not set is asked for by the command that needs it.

    An order may be declared lost once the broker has not found it for `absence_window_s`, or for three times
    `broker_visibility_lag_s` if that is longer; the latter is the order-submitter's setting of that name.
    """

    model_config = SettingsConfigDict(env_prefix="CLOSECTL_", frozen=True, extra="forbid")

    api_url: HttpUrl | None = None
    postgres_dsn: SecretStr | None = None
    kafka_bootstrap_servers: Annotated[str, Field(pattern=r"^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$")] | None = None
    broker: str = "alpaca"
    broker_url: HttpUrl | None = None
    broker_key_id: SecretStr | None = None
    broker_secret_key: SecretStr | None = None
    broker_account_id: str | None = None
    broker_visibility_lag_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    absence_window_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
