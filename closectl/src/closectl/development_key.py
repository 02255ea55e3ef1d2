"""A key of your own, and the tokens that it signs: for development, where no issuer of tokens runs."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

PRIVATE_KEY: Final = "private_key.pem"
JWKS: Final = "jwks.json"
ISSUER: Final = "closeflow-development"
AUDIENCE: Final = "closeflow"
LONGEST_TOKEN: Final = 8 * 1024
"""What close-api takes."""
_THUMBPRINT_MEMBERS: Final = {"OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}


class Algorithm(StrEnum):
    """How tokens are signed: with Ed25519, RSA of 2048 bits, or the curve P-256."""

    EDDSA = "EdDSA"
    RS256 = "RS256"
    ES256 = "ES256"


class Scope(StrEnum):
    """What close-api lets the caller do."""

    WRITE = "close:write"
    READ = "close:read"
    OPERATE = "close:operate"


class KeyTrouble(Exception):
    """A key cannot be written, read or used; the text says why."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says of its caller; `accounts` None is every account."""

    subject: str
    accounts: Sequence[str] | None
    scopes: Collection[Scope]
    issuer: str = ISSUER
    audience: str = AUDIENCE


def make_key(directory: Path, algorithm: Algorithm) -> str:
    """Write PRIVATE_KEY, for its owner alone, and JWKS into the directory, which is made if it is not there. The key's
    id. Raises KeyTrouble, also where either is there already: tokens of that key would be refused from then on."""
    private = _generate(algorithm)
    jwk = _jwk(private) | {"alg": algorithm.value, "use": "sig"}
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secret, public = directory / PRIVATE_KEY, directory / JWKS
    try:
        with suppress(FileExistsError):
            directory.mkdir(0o700)
        for path in (secret, public):
            if path.exists():
                raise KeyTrouble(f"{path} is there already; remove it, or give another directory")
        _write(public, json.dumps({"keys": [jwk]}, indent=2).encode() + b"\n", 0o644)
        _write(secret, pem, 0o600)
    except (OSError, ValueError) as error:
        raise KeyTrouble(f"no key can be written into {directory}: {_cause(error)}") from None
    return str(jwk["kid"])


def issue_token(directory: Path, grant: Grant, *, ttl: timedelta, now: datetime) -> str:
    """A token that the directory's key signs, good from `now` on for `ttl`. Raises KeyTrouble."""
    private = _read(directory / PRIVATE_KEY)
    issued_at = int(now.timestamp())
    claims = {
        "iss": grant.issuer,
        "aud": grant.audience,
        "sub": grant.subject,
        "iat": issued_at,
        "exp": issued_at + int(ttl.total_seconds()),
        "jti": str(uuid4()),
        "accounts": "*" if grant.accounts is None else list(grant.accounts),
        "scope": " ".join(scope.value for scope in grant.scopes),
    }
    token = jwt.encode(claims, private, _algorithm(private).value, headers={"kid": _jwk(private)["kid"]})
    if len(token) > LONGEST_TOKEN:
        raise KeyTrouble(f"the token would have {len(token)} bytes, and may have {LONGEST_TOKEN}; name fewer accounts")
    return token


def _generate(algorithm: Algorithm) -> PrivateKey:
    match algorithm:
        case Algorithm.EDDSA:
            return ed25519.Ed25519PrivateKey.generate()
        case Algorithm.RS256:
            return rsa.generate_private_key(65537, 2048)
        case Algorithm.ES256:
            return ec.generate_private_key(ec.SECP256R1())


def _algorithm(private: PrivateKey) -> Algorithm:
    match private:
        case ed25519.Ed25519PrivateKey():
            return Algorithm.EDDSA
        case rsa.RSAPrivateKey():
            return Algorithm.RS256
        case _:
            return Algorithm.ES256


def _jwk(private: PrivateKey) -> dict[str, Any]:
    """The public key; its id is its thumbprint (RFC 7638), so that the same key has the same id everywhere."""
    match private:
        case ed25519.Ed25519PrivateKey():
            jwk = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case rsa.RSAPrivateKey():
            jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case _:
            jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    named = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    digest = hashlib.sha256(json.dumps(named, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**jwk, "kid": urlsafe_b64encode(digest).rstrip(b"=").decode()}


def _write(path: Path, text: bytes, mode: int) -> None:
    """A new file, which never had other rights than these; whole, or not there."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            path.unlink()
            raise


def _read(path: Path) -> PrivateKey:
    try:
        found = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise KeyTrouble(f"there is no {path}; `closectl token key {path.parent}` makes one") from None
    except OSError as error:
        raise KeyTrouble(f"{path} cannot be read: {_cause(error)}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    match found:
        case ed25519.Ed25519PrivateKey() | rsa.RSAPrivateKey():
            return found
        case ec.EllipticCurvePrivateKey() if isinstance(found.curve, ec.SECP256R1):
            return found
        case _:
            raise KeyTrouble(f"{path} is no private key of Ed25519, RSA or P-256 without a password")


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
