"""TLS as a client: which authority is trusted, and the certificate that is shown."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final


class BadPem(ValueError):
    """A PEM file cannot be used; the text says which one and why, and nothing of what is in it."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Paths of PEM files. Without `ca` the system's authorities are trusted. `certificate` and `key` (without a
    password) go together, and are shown to servers that ask for one."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read now, so what was replaced is used from the next start on. The server's name is checked, and TLS is 1.2
        or newer. Raises BadPem."""
        if self.ca is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Reading the system's authorities takes 40 ms of CPU.
            _trust(context, self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None and self.key is not None:
            _show(context, self.certificate, self.key)
        return context


SYSTEM_AUTHORITIES: Final = ClientTls()
"""Whoever the system trusts, and no certificate of our own."""


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(cadata=ca.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise BadPem(f"{ca} is no readable PEM file of an authority's certificate ({_cause(error)})") from None


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadPem(f"{path} cannot be read ({_cause(error)})") from None
    try:
        # A password is not asked for at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise BadPem(
            f"{certificate} and {key} are not the PEM files of a certificate and its key without a password "
            f"({_cause(error)})"
        ) from None


def _cause(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "OpenSSL cannot read it"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
