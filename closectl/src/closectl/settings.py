"""CLOSECTL_* environment variables: where the system is. Each command needs only some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.settings import (
    BrokerTls,
    HttpUrl,
    KafkaSecurity,
    OptionalDsn,
    OptionalSecret,
    Servers,
    check_pem,
    full_dsn,
)
from closeflow.tls import ClientTls


def _header(value: SecretStr | None) -> SecretStr | None:
    text = None if value is None else value.get_secret_value()
    if text == "":
        raise ValueError("must not be empty; give its value, or unset it")
    if text is not None and not (text.isascii() and text.isprintable()):
        raise ValueError("must be printable ASCII")
    return value


Credential = Annotated[SecretStr | None, AfterValidator(_header)]
NotEmpty = Annotated[str, Field(min_length=1)]


class ClosectlSettings(KafkaSecurity, BrokerTls):
    """What is not set is asked for by the command that needs it.

    An order may be declared lost once the broker has not found it for `absence_window_s`, or for three times
    `broker_visibility_lag_s` if that is longer; the latter is the order-submitter's setting of that name.
    """

    model_config = SettingsConfigDict(env_prefix="CLOSECTL_", frozen=True, extra="forbid")

    api_url: HttpUrl | None = None
    api_token: Credential = None
    api_ca_path: Path | None = None
    connect_ca_path: Path | None = None
    connect_certificate_path: Path | None = None
    connect_key_path: Path | None = None
    postgres_dsn: OptionalDsn = None
    postgres_password: OptionalSecret = None
    kafka_bootstrap_servers: Servers | None = None
    broker: NotEmpty = "alpaca"
    broker_url: HttpUrl | None = None
    broker_key_id: Credential = None
    broker_secret_key: Credential = None
    broker_account_id: NotEmpty | None = None
    broker_visibility_lag_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    absence_window_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0

    @model_validator(mode="after")
    def _refuse_plaintext_kafka(self) -> Self:
        if self.kafka_bootstrap_servers is not None:
            self.refuse_plaintext_kafka(self.kafka_bootstrap_servers)
        return self

    @model_validator(mode="after")
    def _check_postgres(self) -> Self:
        full_dsn(self)
        return self

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        check_pem(self, "api", self.api_tls)
        check_pem(self, "connect", self.connect_tls)
        return self

    @property
    def dsn(self) -> str | None:
        """The database's DSN with its password, a secret; None where it is not set."""
        return full_dsn(self)

    @property
    def connect_tls(self) -> ClientTls:
        """What connections to Connect are made with."""
        return ClientTls(self.connect_ca_path, self.connect_certificate_path, self.connect_key_path)

    @property
    def api_tls(self) -> ClientTls:
        """What connections to close-api are made with."""
        return ClientTls(self.api_ca_path)
