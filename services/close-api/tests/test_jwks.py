"""Which keys of a set may verify tokens: public ones that are strong enough, each by a kid of its own."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from close_api.auth.jwks import MAX_BYTES, BadKeySet, SkippedKey, read_key_set

Jwk = dict[str, Any]

RSA: Final = rsa.generate_private_key(65537, 2048)
P256: Final = ec.generate_private_key(ec.SECP256R1())
ED: Final = ed25519.Ed25519PrivateKey.generate()

RSA_JWK: Final[Jwk] = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "rsa"}
EC_JWK: Final[Jwk] = ECAlgorithm.to_jwk(P256.public_key(), as_dict=True) | {"kid": "ec"}
ED_JWK: Final[Jwk] = OKPAlgorithm.to_jwk(ED.public_key(), as_dict=True) | {"kid": "ed"}


def of_curve(curve: ec.EllipticCurve) -> Jwk:
    return ECAlgorithm.to_jwk(ec.generate_private_key(curve).public_key(), as_dict=True) | {"kid": "ec"}


def body(*keys: object) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def skipped(*keys: object) -> SkippedKey:
    found = read_key_set(body(*keys))
    assert not found.keys
    assert len(found.skipped) == 1
    return found.skipped[0]


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (RSA_JWK, "PS256 PS384 PS512 RS256 RS384 RS512"),
        (RSA_JWK | {"alg": "PS384", "use": "sig", "key_ops": ["verify"]}, "PS384"),
        (EC_JWK, "ES256"),
        (of_curve(ec.SECP384R1()), "ES384"),
        (of_curve(ec.SECP521R1()), "ES512"),
        (ED_JWK, "EdDSA"),
        (ED_JWK | {"alg": "EdDSA", "x5t": "unread"}, "EdDSA"),
    ],
)
def test_a_public_key_verifies_the_algorithms_of_its_kind(jwk: Jwk, algorithms: str) -> None:
    found = read_key_set(body(jwk))
    assert not found.skipped
    assert [sorted(key.algorithms) for key in found.keys.values()] == [algorithms.split()]
    assert [*found.keys] == [jwk["kid"]]


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        ("text", "is not a JSON object"),
        ({name: value for name, value in ED_JWK.items() if name != "kid"}, "no kid"),
        (ED_JWK | {"kid": ""}, "no kid"),
        (ED_JWK | {"kid": 7}, "no kid"),
        (ED_JWK | {"kid": "x" * 201}, "no kid"),
        (ED_JWK | {"kid": "a\nb"}, "no kid"),
        (ED_JWK | {"use": "enc"}, "use"),
        (ED_JWK | {"use": ["sig"]}, "use"),
        (ED_JWK | {"key_ops": ["sign"]}, "key_ops"),
        (ED_JWK | {"key_ops": "verify"}, "key_ops"),
        (ED_JWK | {"alg": "ES256"}, "alg"),
        (RSA_JWK | {"alg": "RSA-OAEP"}, "alg"),
        (RSA_JWK | {"alg": "none"}, "alg"),
        (RSA_JWK | {"alg": "HS256"}, "alg"),
        (RSA_JWK | {"alg": ["RS256"]}, "alg"),
        (EC_JWK | {"alg": "ES384"}, "alg"),
        (of_curve(ec.SECP256K1()), "none of RSA, EC"),
        (OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True) | {"kid": "k"}, "none of"),
        (ED_JWK | {"kty": "EC"}, "none of"),
        (ED_JWK | {"kty": {"RSA": 1}}, "none of"),
        (ED_JWK | {"crv": ["Ed25519"]}, "none of"),
        (ED_JWK | {"x": "AAAA"}, "not those of a public key"),
        (ED_JWK | {"x": 5}, "not those of a public key"),
        (EC_JWK | {"y": EC_JWK["x"]}, "not those of a public key"),
        (EC_JWK | {"x": "€"}, "not those of a public key"),
        (RSA_JWK | {"e": "AA"}, "not those of a public key"),
        (RSA_JWK | {"n": None}, "not those of a public key"),
        ({"kty": "RSA", "kid": "rsa"}, "not those of a public key"),
        (RSA_JWK | {"n": "_" * 1400}, "RSA with"),
        (RSA_JWK | {"n": "_" * 200_000}, "more than 8192 bits"),
        (
            RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True) | {"kid": "weak"},
            "RSA with 1024 bits",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_spoils_no_other(jwk: object, reason: str) -> None:
    found = skipped(jwk)
    assert reason in found.reason
    assert not found.secret
    assert [*read_key_set(body(jwk, EC_JWK | {"kid": "good"})).keys] == ["good"]


@pytest.mark.parametrize(
    ("jwk", "secret"),
    [
        ({"kty": "oct", "kid": "s", "k": "c2VjcmV0LXNlY3JldA"}, "c2VjcmV0LXNlY3JldA"),
        ({"kty": "oct", "kid": "s"}, ""),
        (ED_JWK | {"k": "c2VjcmV0"}, "c2VjcmV0"),
        (RSAAlgorithm.to_jwk(RSA, as_dict=True) | {"kid": "s"}, "d"),
        (ECAlgorithm.to_jwk(P256, as_dict=True) | {"kid": "s"}, "d"),
        (OKPAlgorithm.to_jwk(ED, as_dict=True) | {"kid": "s"}, "d"),
    ],
)
def test_a_secret_in_the_set_is_not_used_and_not_repeated(jwk: Jwk, secret: str) -> None:
    found = skipped(jwk)
    assert found.secret
    value = jwk.get(secret, secret)
    assert not value or value not in repr(found)


def test_two_keys_of_one_kid_are_both_not_used() -> None:
    found = skipped(ED_JWK, EC_JWK | {"kid": "ed"})
    assert (found.kid, found.reason) == ("ed", "another key of the set has the same kid")


def test_the_same_key_twice_is_one() -> None:
    assert [*read_key_set(body(ED_JWK, ED_JWK)).keys] == ["ed"]


def test_a_key_for_encryption_may_share_the_kid() -> None:
    assert [*read_key_set(body(ED_JWK, EC_JWK | {"kid": "ed", "use": "enc"})).keys] == ["ed"]


def test_a_set_is_the_same_as_long_as_its_keys_are() -> None:
    assert read_key_set(body(ED_JWK, EC_JWK)) == read_key_set(body(EC_JWK, ED_JWK | {"x5t": "new"}))
    assert read_key_set(body(ED_JWK)) != read_key_set(body(ED_JWK | {"x": OTHER_X}))


OTHER_X: Final = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True)["x"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"keys": [', "not JSON"),
        (b'{"keys": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "list"),
        (b"null", "list"),
        (b"{}", "list"),
        (b'{"keys": {}}', "list"),
        (body(*[ED_JWK] * 101), "101 keys"),
        (b" " * MAX_BYTES + b'{"keys": []}', "larger"),
    ],
)
def test_what_is_no_key_set_is_told(given: bytes, reason: str) -> None:
    with pytest.raises(BadKeySet, match=reason):
        read_key_set(given)


def test_a_set_may_be_empty() -> None:
    assert not read_key_set(b'{"keys": []}').keys
