"""Read a JSON Web Key Set (RFC 7517): which of its keys may verify a token, and why the others may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
MAX_KID: Final = 200
_RSA_BITS: Final = (2048, 8192)
_LONGEST_MODULUS: Final = 1400
"""Characters of base64url: a little more than the largest modulus has."""
_ALGORITHMS: Final[Mapping[tuple[str, str | None], frozenset[str]]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    # One curve each (RFC 7518 section 3.4).
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
ALGORITHMS: Final = frozenset[str]().union(*_ALGORITHMS.values())
"""Every algorithm that a token may name: signatures that a public key verifies, and nothing else."""
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


class BadKeySet(Exception):
    """The bytes are no key set, or one beyond the limits; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, and the `alg` values of tokens that it may verify. Two are equal when their bytes are."""

    kid: str
    algorithms: frozenset[str]
    der: bytes
    key: PublicKey = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SkippedKey:
    """A key of the set that is not used. `secret`: it holds what nobody but the issuer may know."""

    kid: str | None
    reason: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of a set by their ids."""

    keys: Mapping[str, VerifyingKey]
    skipped: tuple[SkippedKey, ...] = ()


def read_key_set(body: bytes) -> KeySet:
    """The keys that may be used. Raises BadKeySet for what is no set; a key that cannot be used spoils no other."""
    if len(body) > MAX_BYTES:
        raise BadKeySet(f"it is larger than {MAX_BYTES} bytes")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadKeySet("it is not JSON in UTF-8") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise BadKeySet('it is not a JSON object with a list "keys"')
    if len(listed) > MAX_KEYS:
        raise BadKeySet(f"it has {len(listed)} keys, and may have {MAX_KEYS}")
    found: dict[str, VerifyingKey] = {}
    ambiguous: set[str] = set()
    skipped: list[SkippedKey] = []
    for jwk in listed:
        one = _read_key(jwk)
        if isinstance(one, SkippedKey):
            skipped.append(one)
        elif found.setdefault(one.kid, one) != one:
            ambiguous.add(one.kid)
    # Which of them is meant nobody can say, and a token must not be able to choose.
    skipped += [SkippedKey(kid, "another key of the set has the same kid") for kid in sorted(ambiguous)]
    return KeySet({kid: one for kid, one in found.items() if kid not in ambiguous}, tuple(skipped))


def _read_key(jwk: object) -> VerifyingKey | SkippedKey:
    if not isinstance(jwk, dict):
        return SkippedKey(None, "it is not a JSON object")
    kid = jwk.get("kid")
    if not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID and kid.isprintable()):
        return SkippedKey(None, f"it has no kid of 1 to {MAX_KID} printable characters")
    kty, use, operations = jwk.get("kty"), jwk.get("use"), jwk.get("key_ops")
    if kty == "oct" or "k" in jwk:
        return SkippedKey(kid, "it is symmetric: whoever can check a token with it can make one", secret=True)
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        return SkippedKey(kid, "it has private members: whoever reads the set can make tokens", secret=True)
    if use not in (None, "sig"):
        return SkippedKey(kid, "its use is not sig")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return SkippedKey(kid, "its key_ops lack verify")
    algorithms = next((every for kind, every in _ALGORITHMS.items() if kind == _kind(jwk)), None)
    if algorithms is None:
        return SkippedKey(kid, "it is none of RSA, EC P-256, P-384, P-521 and Ed25519")
    alg = jwk.get("alg")
    if alg is not None:
        if not isinstance(alg, str) or alg not in algorithms:
            return SkippedKey(kid, f"its alg is none of {', '.join(sorted(algorithms))}")
        algorithms = frozenset({alg})
    return _verifying(kid, jwk, algorithms)


def _kind(jwk: dict[str, object]) -> tuple[object, object]:
    """Of any type, as JSON has it."""
    return jwk.get("kty"), None if jwk.get("kty") == "RSA" else jwk.get("crv")


def _verifying(kid: str, jwk: dict[str, Any], algorithms: frozenset[str]) -> VerifyingKey | SkippedKey:
    if len(str(jwk.get("n", ""))) > _LONGEST_MODULUS:
        return SkippedKey(kid, f"it is RSA with more than {_RSA_BITS[1]} bits")
    try:
        match jwk["kty"]:
            case "RSA":
                key: object = RSAAlgorithm.from_jwk(jwk)
            case "EC":
                key = ECAlgorithm.from_jwk(jwk)
            case _:
                key = OKPAlgorithm.from_jwk(jwk)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return SkippedKey(kid, "its members are not those of a public key")
    if isinstance(key, RSAPublicKey) and not _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]:
        return SkippedKey(kid, f"it is RSA with {key.key_size} bits, and may have {_RSA_BITS[0]} to {_RSA_BITS[1]}")
    return VerifyingKey(kid, algorithms, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), key)
