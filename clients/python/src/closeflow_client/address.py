"""Where close-api is, and what a client shows and trusts there."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_SCHEMES: Final = ("http", "https", "grpc", "grpcs")
File = str | PathLike[str]
Token = str | Callable[[], str] | None
"""A bearer token, or what gives the newest one; it is asked before each attempt."""
AsyncToken = str | Callable[[], str | Awaitable[str]] | None


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is the address as it was given, without a slash at its end; `target` its host and port."""

    url: str
    target: str
    over_grpc: bool
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: whom to trust beside the public authorities, and the certificate and key to show (mutual TLS)."""

    ca_file: File | None = None
    certificate_file: File | None = None
    key_file: File | None = None

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return (self.ca_file or self.certificate_file or self.key_file) is not None

    def context(self) -> ssl.SSLContext:
        """For HTTPS. Raises OSError for files that cannot be read."""
        made = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            made.load_cert_chain(self.certificate_file, self.key_file)
        return made

    def files(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Roots, key and certificate, for gRPC. Raises OSError for files that cannot be read."""
        roots, key, certificate = (
            None if file is None else Path(file).read_bytes()
            for file in (self.ca_file, self.key_file or self.certificate_file, self.certificate_file)
        )
        return roots, key, certificate


def read_address(text: str) -> Address:
    """Raises ValueError for what is no address of close-api."""
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError(f"the address must be such as https://host:8080 or grpcs://host:9090, not {text!r}")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"the address has no query, fragment or user: {parts.scheme}://{parts.netloc.split('@')[-1]}")
    over_grpc = parts.scheme.startswith("grpc")
    if over_grpc and parts.path not in ("", "/"):
        raise ValueError(f"a gRPC address has no path: {parts.scheme}://{parts.netloc}")
    return Address(text.rstrip("/"), parts.netloc, over_grpc, parts.scheme in ("https", "grpcs"))


def authorization_of(token: str) -> str:
    """The header's value. Raises TypeError or ValueError for what is no token."""
    if not isinstance(token, str):
        raise TypeError(f"the token must be a str, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty or has characters that no token has (a line end of its file?)")
    return f"Bearer {token}"
