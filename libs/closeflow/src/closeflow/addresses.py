"""Addresses of servers as settings have them, checked: each type refuses what cannot be an address, and says why."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, SecretStr

_SERVER: Final = re.compile(r"[^\s,:]+:([0-9]+)")
_NO_HOST: Final = "must have the name or the address of a host, such as 127.0.0.1 or [::1]"


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


def _not_empty(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not value.get_secret_value():
        raise ValueError("must not be empty; give its value, or unset it")
    return value


def _servers(value: str) -> str:
    for server in value.split(","):
        found = _SERVER.fullmatch(server)
        if found is None:
            raise ValueError("must be host:port, or several with commas between them")
        if not 0 < int(found[1][:6]) <= LARGEST_PORT:
            raise ValueError(f"{server} must have a port from 1 to {LARGEST_PORT}")
    return value


LARGEST_PORT: Final = 65_535
HttpUrl = Annotated[str, _url(("http", "https"))]
StreamUrl = Annotated[str, _url(("ws", "wss"))]
Port = Annotated[int, Field(ge=0, le=LARGEST_PORT)]
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]
OptionalDsn = Annotated[SecretStr | None, AfterValidator(_dsn)]
OptionalSecret = Annotated[SecretStr | None, AfterValidator(_not_empty)]
Servers = Annotated[str, AfterValidator(_servers)]
