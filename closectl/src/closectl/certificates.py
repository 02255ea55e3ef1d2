"""Certificates of one system: an authority of its own, and what it signs for servers and clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_NAME: Final = "closeflow authority"
AUTHORITY_DAYS: Final = 3650
BACKDATED: Final = timedelta(hours=1)
"""Clocks of hosts differ."""


class BadPair(Exception):
    """A certificate and its key cannot be used together; the text says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, on the curve P-256: Kafka, PostgreSQL, Java, OpenSSL and gRPC take it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as a file has it."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as a file has it: PKCS 8, without a password."""
        return key_pem(self.key)

    def pkcs12(self, password: str, authority: Pair) -> bytes:
        """Both in one file for Java servers that read no PEM, with the authority's certificate."""
        secured = BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(
            b"tls", self.key, self.certificate, [authority.certificate], secured
        )

    def is_in(self, store: bytes, password: str) -> bool:
        """Whether a PKCS 12 file holds this certificate."""
        try:
            found = pkcs12.load_pkcs12(store, password.encode()).cert
        except ValueError:
            return False
        return found is not None and found.certificate == self.certificate

    def java_truststore(self, password: str) -> bytes:
        """The certificate as the only authority that a Java server trusts, for one that reads no PEM."""
        trusted = [pkcs12.PKCS12Certificate(self.certificate, b"authority")]
        return pkcs12.serialize_java_truststore(trusted, BestAvailableEncryption(password.encode()))


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8 without a password, which is what Kafka's PEM key stores take."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(text: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises BadPair for anything but a key of a curve without a password."""
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadPair("it is no private key of an elliptic curve without a password")
    return key


def read_pair(certificate: bytes, key: bytes) -> Pair:
    """Raises BadPair where they do not belong together."""
    private = read_key(key)
    try:
        made = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        raise BadPair("it is no PEM file of a certificate") from None
    if made.public_key() != private.public_key():
        raise BadPair("it is not the certificate of the key beside it")
    return Pair(made, private)


def make_authority(now: datetime) -> Pair:
    """An authority that signs itself, good for ten years."""
    key, name = new_key(), _name(AUTHORITY_NAME)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _begun(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, SHA256())
    )
    return Pair(made, key)


def sign(
    authority: Pair,
    key: ec.EllipticCurvePrivateKey,
    name: str,
    *,
    hosts: Sequence[str],
    now: datetime,
    days: int,
) -> Pair:
    """A certificate for CN=`name`. With `hosts`, names or addresses, it is a server's, which Kafka's brokers also show
    to each other; without, it is a client's."""
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    builder = (
        _begun(authority.certificate.subject, _name(name), key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(authority.key, SHA256()), key)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that a server's certificate is good for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def is_signed_by(certificate: x509.Certificate, authority: Pair) -> bool:
    """Whether this authority, and not an earlier one of the same name, signed it."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except Exception:  # ValueError, TypeError or InvalidSignature: it did not, in one way or the other.
        return False
    return True


def is_address(host: str) -> bool:
    """Whether it is an IP address and no name."""
    return isinstance(_address(host), IPv4Address | IPv6Address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _general_name(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _begun(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
