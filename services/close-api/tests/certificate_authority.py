"""Certificates for tests: authorities, what they sign, and files as a tool renews them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from close_api.auth.tls import Certificates, TlsFiles


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._made = self._sign(self._name, self._key, ca=True)
        self.pem = self._made.public_bytes(Encoding.PEM)

    def pair(self, name: str = "localhost", *, secured_by: KeySerializationEncryption | None = None) -> Pair:
        """A new key with its certificate, for a server at localhost or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, ca=False)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secured_by or NoEncryption())
        return Pair(made.public_bytes(Encoding.PEM), text)

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(usage, critical=False)
        return builder.sign(self._key, SHA256())


CA: Final = Authority("servers")
CLIENTS: Final = Authority("clients")
OTHERS: Final = Authority("others")
FIRST: Final = CA.pair()
SECOND: Final = CA.pair()
CLIENT: Final = CLIENTS.pair("portfolio")
OTHER: Final = OTHERS.pair("portfolio")


def place(directory: Path, pair: Pair, *, client_ca: bytes | None = None) -> TlsFiles:
    """Put them there as a tool does that renews certificates: each file replaced, one after the other."""
    files = TlsFiles(directory / "tls.crt", directory / "tls.key", directory / "ca.crt" if client_ca else None)
    for path, text in ((files.certificate, pair.certificate), (files.key, pair.key), (files.client_ca, client_ca)):
        if path is not None and text is not None:
            new = path.with_suffix(".new")
            new.write_bytes(text)
            new.replace(path)
    return files


def looked_at_always(files: TlsFiles) -> Certificates:
    """For every connection, and not once a second."""
    return Certificates(files, check_every_s=0)


def der(pair: Pair) -> bytes:
    """The certificate as peers show it."""
    return x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)


def context_of(client: Pair | None, directory: Path) -> ssl.SSLContext:
    """Of a client that trusts CA, with a certificate of its own or without."""
    context = ssl.create_default_context(cadata=CA.pem.decode())
    if client is not None:
        file = directory / "client.pem"
        file.write_bytes(client.certificate + client.key)
        context.load_cert_chain(file)
    return context
