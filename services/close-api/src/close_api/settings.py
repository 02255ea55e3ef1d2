"""Settings of close-api; every variable begins with CLOSE_API_."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.settings import (
    HttpUrl,
    OptionalDsn,
    OptionalSecret,
    Port,
    PostgresSettings,
    ServiceSettings,
    full_dsn,
    is_loopback,
)

_URL: TypeAdapter[str] = TypeAdapter(HttpUrl)


def _jwks(value: str) -> str:
    """A path, or an address without a login in it: it is named in logs."""
    scheme, given, _ = value.partition("://")
    if not given:
        return value
    if scheme.lower() not in ("http", "https"):
        raise ValueError("must be the path of a file, or a URL that begins with http:// or https://")
    try:
        _URL.validate_python(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if "@" in urlsplit(value).netloc:
        raise ValueError("must not have a user or a password in it")
    return value


NotEmpty = Annotated[str, Field(min_length=1, max_length=1000)]
Jwks = Annotated[str, Field(min_length=1), AfterValidator(_jwks)]


class AuthSettings(ServiceSettings):
    """Who may call. `jwks` is the path or the URL of the issuer's key set; `issuer` and `audience` are what `iss` and
    `aud` of a token must be. Without its source a key set is used until it is `jwks_max_age_s` old."""

    auth: Literal["jwt", "disabled"]
    jwks: Jwks | None = None
    issuer: NotEmpty | None = None
    audience: NotEmpty | None = None
    jwks_refresh_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    jwks_max_age_s: Annotated[float, Field(ge=1, le=604_800)] = 3600.0
    token_leeway_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    token_cache_size: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    rate_limit_closes: Annotated[int, Field(ge=1, le=100_000_000)] = 60_000
    rate_limit_window_s: Annotated[int, Field(ge=1, le=3600)] = 60

    @model_validator(mode="after")
    def _refuse_open_door(self) -> Self:
        for name, host in _doors(self):
            if self.auth == "disabled" and not is_loopback(host):
                raise ValueError(
                    f"auth: disabled would let everyone who reaches {host} close positions; "
                    f"bind to 127.0.0.1 with {_variable(self, name)}"
                )
        return self

    @model_validator(mode="after")
    def _need_an_issuer(self) -> Self:
        if self.auth == "disabled":
            return self
        for name, what in (
            ("jwks", "the path or the URL of the issuer's key set"),
            ("issuer", "what iss of a token must be"),
            ("audience", "what aud of a token must have"),
        ):
            if getattr(self, name) is None:
                raise ValueError(f"{name}: give {what}, because {_variable(self, 'auth')} is jwt")
        url = urlsplit(self.jwks or "")
        if url.scheme.lower() == "http" and not is_loopback(url.hostname or "") and not self.allow_plaintext:
            raise ValueError(
                "jwks: whoever can change an answer without encryption could make tokens; use https, "
                f"or set {_variable(self, 'allow_plaintext')}=true if the network is trusted"
            )
        if self.jwks_max_age_s <= self.jwks_refresh_s:
            raise ValueError(
                f"jwks_max_age_s: must be more than {_variable(self, 'jwks_refresh_s')}, {self.jwks_refresh_s:g}"
            )
        return self


class TlsSettings(ServiceSettings):
    """PEM files of both doors; they are read again when they change. With `tls_client_ca_path` only clients connect
    whose certificate is of one of these authorities."""

    tls_certificate_path: Path | None = None
    tls_key_path: Path | None = None
    tls_client_ca_path: Path | None = None

    @model_validator(mode="after")
    def _need_a_pair(self) -> Self:
        given = (self.tls_certificate_path is not None, self.tls_key_path is not None)
        for name, here, other in (
            ("tls_certificate_path", given[0], given[1] or self.tls_client_ca_path is not None),
            ("tls_key_path", given[1], given[0]),
        ):
            if other and not here:
                raise ValueError(f"{name}: set it too; client authorities need a certificate, and that its key")
        return self

    @model_validator(mode="after")
    def _refuse_plaintext_door(self) -> Self:
        if self.tls_certificate_path is not None or self.allow_plaintext:
            return self
        for name, host in _doors(self):
            if not is_loopback(host):
                raise ValueError(
                    f"{name}: tokens and closes would go to {host} without encryption; set "
                    f"{_variable(self, 'tls_certificate_path')} and {_variable(self, 'tls_key_path')}, "
                    f"or {_variable(self, 'allow_plaintext')}=true if something before it ends TLS"
                )
        return self


class Settings(TlsSettings, AuthSettings, PostgresSettings, ServiceSettings):
    """Of the `postgres_pool_size` connections each of the `batches_in_flight` has one, and who reads and cancels the
    others. `request_deadline_ms` bounds the reading of a body and the wait for the database alike. `max_connections`
    are those of each door, and `max_calls` what gRPC answers at once. Operators are served over REST where
    `operator_postgres_dsn` is the login of the role closeflow_operator, which may do what close-api's own may not."""

    model_config = SettingsConfigDict(env_prefix="CLOSE_API_")

    http_host: str = "127.0.0.1"
    http_port: Port = 8080
    grpc_host: str = "127.0.0.1"
    grpc_port: Port = 9090
    grpc_reflection: bool = False
    replication_slot: Annotated[str, Field(pattern="^[a-z0-9_]{1,63}$")] = "closeflow_closeflow"
    postgres_pool_size: Annotated[int, Field(ge=3, le=100)] = 6
    operator_postgres_dsn: OptionalDsn = None
    operator_postgres_password: OptionalSecret = None
    queue_capacity: Annotated[int, Field(ge=1, le=100_000)] = 1024
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 64
    batches_in_flight: Annotated[int, Field(ge=1, le=8)] = 3
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    max_calls: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    request_deadline_ms: Annotated[int, Field(ge=100, le=60_000)] = 5_000

    @model_validator(mode="after")
    def _check_operator_postgres(self) -> Self:
        full_dsn(self, "operator_postgres")
        return self

    @property
    def operator_dsn(self) -> str | None:
        """What the operators' engine is made of, with its password; None where operators are not served."""
        return full_dsn(self, "operator_postgres")

    @model_validator(mode="after")
    def _need_connections_for_readers(self) -> Self:
        if self.postgres_pool_size <= self.batches_in_flight:
            raise ValueError(
                f"postgres_pool_size: must be more than {_variable(self, 'batches_in_flight')}, "
                f"{self.batches_in_flight}; the rest is for who reads and cancels"
            )
        return self


def _doors(settings: ServiceSettings) -> list[tuple[str, str]]:
    """The fields that say where a door listens, `http_host` and its like; health checks close nothing."""
    return [
        (name, host)
        for name, host in settings
        if name.endswith("_host") and name != "health_host" and isinstance(host, str)
    ]


def _variable(settings: ServiceSettings, name: str) -> str:
    return f"{settings.model_config.get('env_prefix', '')}{name.upper()}"
