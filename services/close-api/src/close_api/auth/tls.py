"""TLS of both doors: one certificate, its key, and the authorities of client certificates, read again when they change.

A connection keeps what it began with. The next one gets the new files, if they belong together; until then the old.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from close_api.auth.key_source import open_at_once
from closeflow.clock import monotonic
from closeflow.domain.text import time_text

_MAX_BYTES: Final = 1024 * 1024
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those with forward secrecy and authenticated encryption; TLS 1.3 has no others."""

log = structlog.get_logger(__name__)


class BadCertificate(Exception):
    """The files cannot serve TLS; the text says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the certificate with what leads to its authority, its key without a password, and the
    authorities whose clients alone may connect; without the last anyone may."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One state of the files, in the form of either server."""

    context: ssl.SSLContext
    configuration: grpc.ServerCertificateConfiguration
    expires_at: datetime
    number: int


class Certificates:
    """What the files held when they were last good. They are looked at when somebody connects, at most each
    `check_every_s`; gRPC does so in threads of its own."""

    def __init__(self, files: TlsFiles, *, check_every_s: float = 1.0) -> None:
        """Raises BadCertificate: there is nothing older to begin with."""
        self._files = files
        self._check_every_s = check_every_s
        self._lock = threading.Lock()
        self._checked_at = monotonic()
        self._failures = 0
        self._seen = _state(files)
        self._loaded = _load(files, 1)
        self._tell(self._loaded)

    def http_context(self) -> ssl.SSLContext:
        """For uvicorn. It stands for the newest context: each handshake begins by changing to that."""
        front = _context(mutual=self._mutual)
        front.sni_callback = self._change_context
        return front

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        first = self._newest()
        return grpc.dynamic_ssl_server_credentials(
            first.configuration,
            self._newer_than(first),  # type: ignore[arg-type] # May return None, which its types do not say.
            require_client_authentication=self._mutual,
        )

    @property
    def _mutual(self) -> bool:
        return self._files.client_ca is not None

    def _change_context(self, connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        """OpenSSL asks this of every client, also of one that names no server."""
        connection.context = self._newest().context

    def _newer_than(self, first: _Loaded) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What gRPC asks at each connection: None says that nothing changed."""
        told = first.number

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            newest = self._newest()
            if newest.number == told:
                return None
            told = newest.number
            return newest.configuration

        return newer

    def _newest(self) -> _Loaded:
        with self._lock:
            now = monotonic()
            if now - self._checked_at >= self._check_every_s:
                self._checked_at = now
                self._look()
            return self._loaded

    def _look(self) -> None:
        try:
            state = _state(self._files)
            if state == self._seen and not self._failures:
                return
            loaded = _load(self._files, self._loaded.number + 1)
        except BadCertificate as error:
            self._failures += 1
            # Whoever renews them replaces one file after the other: at the first look they may not belong together yet.
            if self._failures == 2:
                expires_at = time_text(self._loaded.expires_at)
                log.error("tls_certificate_not_replaced", reason=str(error), old_expires_at=expires_at)
            return
        self._failures = 0
        self._seen = state
        self._loaded = loaded
        self._tell(loaded)

    def _tell(self, loaded: _Loaded) -> None:
        log.info(
            "tls_certificate_loaded", certificate=str(self._files.certificate), expires_at=time_text(loaded.expires_at)
        )


def _state(files: TlsFiles) -> tuple[tuple[int, ...], ...]:
    """Differs when a file was replaced or written."""
    found = []
    for path in files.paths():
        try:
            one = path.stat()
        except (OSError, ValueError) as error:
            raise BadCertificate(f"{path} cannot be read: {_cause(error)}") from None
        found.append((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns))
    return tuple(found)


def _load(files: TlsFiles, number: int) -> _Loaded:
    certificate, key = _read(files.certificate), _read(files.key)
    client_ca = None if files.client_ca is None else _read(files.client_ca)
    expires_at = _check_pair(files, certificate, key)
    context = _context(mutual=client_ca is not None)
    try:
        # A password is not asked for at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{files.certificate} and {files.key} cannot be used: {_cause(error)}") from None
    if client_ca is not None:
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (OSError, ValueError) as error:
            raise BadCertificate(f"{files.client_ca} is no PEM file of authorities: {_cause(error)}") from None
    configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)
    return _Loaded(context, configuration, expires_at, number)


def _context(*, mutual: bool) -> ssl.SSLContext:
    """All of a context but its certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # In TLS 1.2 a client could ask for a new handshake as often as it likes.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is taken up again is not verified again, and may be of an authority that was taken out.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=open_at_once) as file:
            found = file.read(_MAX_BYTES + 1) or b""
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{path} cannot be read: {_cause(error)}") from None
    if len(found) > _MAX_BYTES:
        raise BadCertificate(f"{path} is larger than {_MAX_BYTES} bytes")
    return found


def _check_pair(files: TlsFiles, certificate: bytes, key: bytes) -> datetime:
    """Until when the certificate is valid. Nothing of the key gets into the error."""
    try:
        first = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        raise BadCertificate(f"{files.certificate} is no PEM file of a certificate") from None
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password.
        raise BadCertificate(f"{files.key} is no PEM file of a private key without a password") from None
    if private.public_key() != first.public_key():
        raise BadCertificate(f"{files.key} is not the key of the certificate in {files.certificate}")
    return first.not_valid_after_utc


def _cause(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is not what OpenSSL reads"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
