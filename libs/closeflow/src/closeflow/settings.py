"""The base of every service's settings: read once from the environment, frozen, refused when impossible.

A service subclasses it with its prefix and the groups it needs:

    class Settings(PostgresSettings, KafkaSettings):
        model_config = SettingsConfigDict(env_prefix="FILL_PROCESSOR_")

and its `__main__` says `settings = load(Settings)`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from closeflow.addresses import Dsn, HttpUrl, OptionalDsn, OptionalSecret, Port, Servers, StreamUrl, is_loopback
from closeflow.domain.retry import RetryPolicy
from closeflow.kafka.connection import KafkaConnection, SecurityProtocol
from closeflow.storage.core.dsn import BadDsn, check_encryption, hosts, with_password
from closeflow.telemetry import LogFormat
from closeflow.tls import SYSTEM_AUTHORITIES, BadPem, ClientTls

__all__ = [
    "BadSetting",
    "BrokerSettings",
    "BrokerTls",
    "Dsn",
    "HttpUrl",
    "KafkaSecurity",
    "KafkaSettings",
    "OptionalDsn",
    "OptionalSecret",
    "Port",
    "PostgresSettings",
    "RetrySettings",
    "SecurityProtocol",
    "Servers",
    "ServiceSettings",
    "StreamUrl",
    "check_pem",
    "full_dsn",
    "is_loopback",
    "load",
    "read",
]

S = TypeVar("S", bound="ServiceSettings")

_FILE: Final = "_FILE"


class BadSetting(Exception):
    """One environment variable is missing, unknown or impossible; the text names it and says how to mend it."""


def _prefix(settings: BaseSettings) -> str:
    return settings.model_config.get("env_prefix", "")


def _trusted(settings: BaseSettings) -> str:
    return f"set {_prefix(settings)}ALLOW_PLAINTEXT=true if the network is trusted"


class ServiceSettings(BaseSettings):
    """What every service has. `allow_plaintext` accepts connections without TLS to hosts other than this one."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    log_format: LogFormat = LogFormat.JSON
    health_host: str = "127.0.0.1"
    health_port: Port = 0
    otlp_endpoint: HttpUrl | None = None
    otlp_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    allow_plaintext: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over, so that no value slips in unchecked from a second place."""
        return (init_settings,)

    @model_validator(mode="after")
    def _refuse_plaintext(self) -> Self:
        if self.allow_plaintext:
            return self
        for name, url in self:
            if (name.endswith("_url") or name == "otlp_endpoint") and isinstance(url, str):
                parts = urlsplit(url)
                if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname or ""):
                    raise ValueError(
                        f"{name}: {url} is not encrypted and not on this machine; use {parts.scheme}s, "
                        f"or {_trusted(self)}"
                    )
        return self


def full_dsn(settings: ServiceSettings, name: str = "postgres") -> str | None:
    """The DSN of `<name>_dsn` with the password of `<name>_password` in it; None where no DSN is given. Raises
    ValueError if they do not fit, and if the server is elsewhere and would not be verified, which is not allowed."""
    field, password = f"{name}_dsn", getattr(settings, f"{name}_password")
    secret = getattr(settings, field)
    if secret is None:
        if password is not None:
            raise ValueError(f"{field}: give the DSN whose password {_prefix(settings)}{name.upper()}_PASSWORD is")
        return None
    try:
        dsn = with_password(secret.get_secret_value(), None if password is None else password.get_secret_value())
        exposed = check_encryption(dsn)
    except BadDsn as error:
        raise ValueError(f"{field}: {error}") from None
    for host in hosts(dsn):
        if exposed is not None and not settings.allow_plaintext and not is_loopback(host):
            raise ValueError(
                f"{field}: {host} is not on this machine, and {exposed} nobody would know who answers there; "
                f"add ?sslmode=verify-full&sslrootcert=/path/ca.pem, or {_trusted(settings)}"
            )
    return dsn


class PostgresSettings(ServiceSettings):
    """The database of a service, by its own role. A password that is given apart is put into the DSN, which then is no
    secret. The server must be verified unless it is this machine or ALLOW_PLAINTEXT is true."""

    postgres_dsn: Dsn
    postgres_password: OptionalSecret = None

    @model_validator(mode="after")
    def _check_postgres(self) -> Self:
        full_dsn(self)
        return self

    @property
    def dsn(self) -> str:
        """What engines are made of: a secret, because the password is in it."""
        found = full_dsn(self)
        assert found is not None
        return found


class KafkaSecurity(ServiceSettings):
    """How connections to Kafka are secured, and as whom: by a password with SASL_SSL, with SSL by a certificate, where
    one is given. Without an authority's file the system's authorities are trusted."""

    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_ca_path: Path | None = None
    kafka_username: Annotated[str, Field(min_length=1)] | None = None
    kafka_password: OptionalSecret = None
    kafka_certificate_path: Path | None = None
    kafka_key_path: Path | None = None

    @model_validator(mode="after")
    def _check_kafka_security(self) -> Self:
        protocol, prefix = self.kafka_security_protocol, f"{_prefix(self)}KAFKA_SECURITY_PROTOCOL"
        belong = {
            "kafka_ca_path": ("SSL", "SASL_SSL"),
            "kafka_username": ("SASL_SSL",),
            "kafka_password": ("SASL_SSL",),
            "kafka_certificate_path": ("SSL",),
            "kafka_key_path": ("SSL",),
        }
        for name, protocols in belong.items():
            if getattr(self, name) is not None and protocol not in protocols:
                raise ValueError(
                    f"{name}: it belongs to {prefix}={' or '.join(protocols)}, and that is {protocol}; change one"
                )
        if protocol == "SASL_SSL":
            for name in ("kafka_username", "kafka_password"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: give it, because {prefix} is SASL_SSL")
        check_pem(self, "kafka", self.kafka_tls)
        return self

    @property
    def kafka_tls(self) -> ClientTls:
        """The files of the authority, and of the certificate if one is shown."""
        return ClientTls(self.kafka_ca_path, self.kafka_certificate_path, self.kafka_key_path)

    def kafka_at(self, servers: str, *, client_id: str = "closeflow") -> KafkaConnection:
        """What clients of these servers are made of."""
        password = self.kafka_password
        return KafkaConnection(
            servers,
            self.kafka_security_protocol,
            tls=self.kafka_tls,
            username=self.kafka_username,
            password=None if password is None else password.get_secret_value(),
            client_id=client_id,
        )

    def refuse_plaintext_kafka(self, servers: str) -> None:
        """Raise ValueError if these servers are elsewhere, the way is not encrypted, and that is not allowed."""
        for server in servers.split(","):
            if self.kafka_security_protocol != "PLAINTEXT" or self.allow_plaintext:
                return
            if not is_loopback(server.rpartition(":")[0]):
                raise ValueError(
                    f"kafka_bootstrap_servers: {server} is not on this machine, and the connection would not be "
                    f"encrypted; set {_prefix(self)}KAFKA_SECURITY_PROTOCOL=SSL, or SASL_SSL with a user and a "
                    f"password, or {_trusted(self)}"
                )


def check_pem(settings: ServiceSettings, name: str, tls: ClientTls) -> None:
    """Raise ValueError for `<name>_ca_path`, `<name>_certificate_path` and `<name>_key_path` that cannot be used."""
    for one, here, other in (("certificate", tls.certificate, tls.key), ("key", tls.key, tls.certificate)):
        if here is None and other is not None:
            raise ValueError(f"{name}_{one}_path: give it too; a certificate and its key go together")
    for what, part in (("ca", ClientTls(ca=tls.ca)), ("certificate", ClientTls(None, tls.certificate, tls.key))):
        try:
            if part != SYSTEM_AUTHORITIES:
                part.context()
        except BadPem as error:
            raise ValueError(f"{name}_{what}_path: {error}") from None


class KafkaSettings(KafkaSecurity):
    """Kafka as a service reaches it. Plain text is refused on anything but the loopback address, unless ALLOW_PLAINTEXT
    is true."""

    kafka_bootstrap_servers: Servers

    @model_validator(mode="after")
    def _refuse_plaintext_kafka(self) -> Self:
        self.refuse_plaintext_kafka(self.kafka_bootstrap_servers)
        return self

    @property
    def kafka(self) -> KafkaConnection:
        """What clients are made of."""
        return self.kafka_at(self.kafka_bootstrap_servers)


class BrokerTls(ServiceSettings):
    """Whom a broker's certificate must be of: `broker_ca_path`, for orders, trade updates and market data alike, else
    one of the system's authorities."""

    broker_ca_path: Path | None = None

    @model_validator(mode="after")
    def _check_broker_ca(self) -> Self:
        check_pem(self, "broker", self.broker_tls)
        url = getattr(self, "broker_url", None)
        if self.broker_ca_path is not None and url is not None and not url.startswith("https://"):
            raise ValueError(f"broker_ca_path: {url} has no certificate to check; use https, or take the authority out")
        return self

    @property
    def broker_tls(self) -> ClientTls:
        """What connections to the broker are made with."""
        return ClientTls(self.broker_ca_path)


class BrokerSettings(BrokerTls):
    """`rate_per_s` is this process's share of what the broker allows an account: of calls of every kind."""

    broker_url: HttpUrl
    broker_key_id: SecretStr
    broker_secret_key: SecretStr
    rate_per_s: Annotated[float, Field(gt=0, le=10_000)] = 20.0


class RetrySettings(ServiceSettings):
    """Seconds before the next attempt of a close whose order ended unfilled: the same in every service that concludes
    closes. Each pause is at least the settle delay, in which late fills come in."""

    retry_settle_delay_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    retry_base_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    retry_cap_s: Annotated[float, Field(gt=0, le=3600)] = 30.0

    @property
    def retry_policy(self) -> RetryPolicy:
        """How long a close waits before its next attempt."""
        return RetryPolicy(settle_delay_s=self.retry_settle_delay_s, base_s=self.retry_base_s, cap_s=self.retry_cap_s)


def load(settings: type[S], environ: Mapping[str, str] = os.environ) -> S:
    """Read the settings, or print one line that names the variable and how to mend it, and exit with 2."""
    try:
        return read(settings, environ)
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def read(settings: type[S], environ: Mapping[str, str]) -> S:
    """Like `load`, raising `BadSetting`. A variable that begins with the prefix and is no setting is refused; a secret
    may be given as the path of a file in `<NAME>_FILE` instead."""
    prefix = settings.model_config.get("env_prefix", "")
    assert prefix, f"{settings.__name__} has no env_prefix"
    values: dict[str, object] = {}
    for variable in sorted(name for name in environ if name.startswith(prefix)):
        field = variable.removeprefix(prefix).lower()
        try:
            environ[variable].encode()
        except UnicodeEncodeError:
            raise BadSetting(f"{variable} is wrong: it is not UTF-8") from None
        if field in settings.model_fields:
            values[field] = environ[variable]
            continue
        secret = field.removesuffix(_FILE.lower())
        if not variable.endswith(_FILE) or not _is_secret(settings, secret):
            raise BadSetting(f"{variable} is not a setting of this service; known are {_known(settings, prefix)}")
        if f"{prefix}{secret.upper()}" in environ:
            raise BadSetting(f"{variable} and {prefix}{secret.upper()} are both set; remove one of them")
        values[secret] = _secret_from(variable, environ[variable])
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise BadSetting(_explain(settings, prefix, error)) from None


def _is_secret(settings: type[ServiceSettings], field: str) -> bool:
    found = settings.model_fields.get(field)
    return found is not None and found.annotation in (SecretStr, SecretStr | None)


def _secret_from(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(
            f"{variable}: {path} cannot be read ({error}); give the path of a readable text file"
        ) from None


def _known(settings: type[ServiceSettings], prefix: str) -> str:
    return ", ".join(f"{prefix}{name.upper()}" for name in settings.model_fields)


def _explain(settings: type[ServiceSettings], prefix: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        field, _, message = message.partition(": ")
        return f"{prefix}{field.upper()}: {message}"
    field = str(first["loc"][0])
    variable = f"{prefix}{field.upper()}"
    if first["type"] == "missing":
        also = f" or {variable}{_FILE}" if _is_secret(settings, field) else ""
        return f"{variable} is not set; set it{also}"
    return f"{variable} is wrong: {message[:1].lower()}{message[1:]}"
