"""The base of every service's settings: read once from the environment, frozen, refused when impossible.

A service subclasses it with its prefix and the groups it needs:

    class Settings(PostgresSettings, KafkaSettings):
        model_config = SettingsConfigDict(env_prefix="FILL_PROCESSOR_")

and its `__main__` says `settings = load(Settings)`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from closeflow.domain.retry import RetryPolicy
from closeflow.kafka.connection import KafkaConnection
from closeflow.telemetry import LogFormat

S = TypeVar("S", bound="ServiceSettings")

_FILE: Final = "_FILE"
_SERVER: Final = re.compile(r"[^\s,:]+:([0-9]+)")
_NO_HOST: Final = "must have the name or the address of a host, such as 127.0.0.1 or [::1]"


class BadSetting(Exception):
    """One environment variable is missing, unknown or impossible; the text names it and says how to mend it."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _url(schemes: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        parts = _split(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        _check_place(parts)
        return value.rstrip("/")

    return AfterValidator(check)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError(_NO_HOST) from None


def _check_place(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must have a port from 1 to 65535 after the host, or none")
    try:
        (parts.hostname or "").encode("idna")
    except UnicodeError:
        raise ValueError(_NO_HOST) from None


def _dsn(value: SecretStr | None) -> SecretStr | None:
    """Without the value in what is said: it may hold a password, and in that any character."""
    if value is None:
        return None
    scheme, given, rest = value.get_secret_value().partition("://")
    if not given or scheme not in ("postgresql", "postgresql+psycopg"):
        raise ValueError("must be a DSN such as postgresql://user:password@host:5432/database")
    place = re.split(r"[/?#]", rest.rpartition("@")[2])[0]
    _check_place(_split(f"//{place}"))
    return value


def _servers(value: str) -> str:
    for server in value.split(","):
        found = _SERVER.fullmatch(server)
        if found is None:
            raise ValueError("must be host:port, or several with commas between them")
        if not 0 < int(found[1][:6]) <= LARGEST_PORT:
            raise ValueError(f"{server} must have a port from 1 to {LARGEST_PORT}")
    return value


def _prefix(settings: BaseSettings) -> str:
    return settings.model_config.get("env_prefix", "")


def _trusted(settings: BaseSettings) -> str:
    return f"set {_prefix(settings)}ALLOW_PLAINTEXT=true if the network is trusted"


LARGEST_PORT: Final = 65_535
HttpUrl = Annotated[str, _url(("http", "https"))]
StreamUrl = Annotated[str, _url(("ws", "wss"))]
Port = Annotated[int, Field(ge=0, le=LARGEST_PORT)]
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]
OptionalDsn = Annotated[SecretStr | None, AfterValidator(_dsn)]
Servers = Annotated[str, AfterValidator(_servers)]
SecurityProtocol = Literal["PLAINTEXT", "SSL"]


class ServiceSettings(BaseSettings):
    """What every service has. `allow_plaintext` accepts connections without TLS to hosts other than this one."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    log_format: LogFormat = LogFormat.JSON
    health_host: str = "127.0.0.1"
    health_port: Port = 0
    otlp_endpoint: HttpUrl | None = None
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
            if name.endswith("_url") and isinstance(url, str):
                parts = urlsplit(url)
                if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname or ""):
                    raise ValueError(
                        f"{name}: {url} is not encrypted and not on this machine; use {parts.scheme}s, "
                        f"or {_trusted(self)}"
                    )
        return self


def refuse_plaintext_kafka(settings: ServiceSettings, servers: str) -> None:
    """Raise ValueError if these servers, which are not encrypted, are elsewhere and that is not allowed."""
    for server in servers.split(","):
        if not settings.allow_plaintext and not is_loopback(server.rpartition(":")[0]):
            raise ValueError(
                f"kafka_bootstrap_servers: {server} is not on this machine, and the connection would not be "
                f"encrypted; set {_prefix(settings)}KAFKA_SECURITY_PROTOCOL=SSL, or {_trusted(settings)}"
            )


class PostgresSettings(ServiceSettings):
    """The database of a service, by its own role."""

    postgres_dsn: Dsn


class KafkaSettings(ServiceSettings):
    """Kafka as a service reaches it. Plain text is refused on anything but the loopback address, unless ALLOW_PLAINTEXT
    is true."""

    kafka_bootstrap_servers: Servers
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_ca_path: Path | None = None

    @model_validator(mode="after")
    def _refuse_plaintext_kafka(self) -> Self:
        if self.kafka_security_protocol == "PLAINTEXT":
            refuse_plaintext_kafka(self, self.kafka_bootstrap_servers)
        return self

    @property
    def kafka(self) -> KafkaConnection:
        """What clients are made of."""
        return KafkaConnection(self.kafka_bootstrap_servers, self.kafka_security_protocol, self.kafka_ca_path)


class BrokerSettings(ServiceSettings):
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
