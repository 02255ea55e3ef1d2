"""CLOSECTL_* environment variables: where the system is. Each command needs only some of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from closeflow.settings import HttpUrl, ServiceSettings


class ClosectlSettings(ServiceSettings):
    """What is not set is asked for by the command that needs it."""

    model_config = SettingsConfigDict(env_prefix="CLOSECTL_", frozen=True, extra="forbid")

    api_url: HttpUrl | None = None
    postgres_dsn: SecretStr | None = None
    kafka_bootstrap_servers: Annotated[str, Field(pattern=r"^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$")] | None = None
    broker: str = "alpaca"
    broker_url: HttpUrl | None = None
    broker_key_id: SecretStr | None = None
    broker_secret_key: SecretStr | None = None
    broker_account_id: str | None = None
