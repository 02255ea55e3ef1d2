"""Every token that is not a good one is refused in one way, and nothing of it is repeated to anybody."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import HMACAlgorithm, OKPAlgorithm
from token_signing import (
    CLAIMS,
    ED,
    JWKS,
    LEAKED_KEY,
    P256_KEY,
    RSA_KEY,
    RULES,
    SHARED_SECRET,
    Still,
    T,
    b64,
    refused,
    sign,
    token,
)

from close_api.auth.claims import EXPLAINED, Refusal
from close_api.auth.jwks import VerifyingKey, read_key_set
from close_api.auth.keys import Keys
from close_api.auth.tokens import Tokens
from closeflow.clock import driven_by


class Fixed(Keys):
    """The keys of JWKS, without a file."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self._fixed = read_key_set(json.dumps({"keys": [one | {"kid": kid} for kid, one in JWKS.items()]}).encode())

    def generation(self) -> int:
        return 1

    async def find(self, kid: str) -> tuple[int, VerifyingKey | None]:
        return 1, self._fixed.keys.get(kid)

    @property
    def known(self) -> bool:
        return True


TAKEN: Final = Tokens(Fixed(), RULES)
STRANGER: Final = ed25519.Ed25519PrivateKey.generate()
PUBLIC_PEM: Final = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
GOOD: Final = token()


@pytest.fixture(autouse=True)
def now() -> Iterator[None]:
    with driven_by(Still()):
        yield


NONE: Final = b64(b'{"alg":"none","kid":"ed"}')
BODY: Final = b64(json.dumps(CLAIMS).encode())


def raw_claims(extra: str) -> str:
    """A good token with this text in the JSON of its claims."""
    return sign(ED, json.dumps(CLAIMS)[:-1].encode() + extra.encode() + b"}")


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


def hmac(alg: str, kid: str, secret: bytes) -> str:
    signed = f"{b64(json.dumps({'alg': alg, 'kid': kid}).encode())}.{BODY}"
    digest = {"HS256": HMACAlgorithm.SHA256, "HS512": HMACAlgorithm.SHA512}[alg]
    return f"{signed}.{b64(HMACAlgorithm(digest).sign(signed.encode(), secret))}"


def swapped(part: int, raw: bytes) -> str:
    """A good token with one of its parts replaced after it was signed."""
    parts = token().split(".")
    parts[part] = b64(raw)
    return ".".join(parts)


BAD: Final[dict[str, tuple[Refusal, Callable[[], str]]]] = {
    "alg none, no signature": (Refusal.MALFORMED, lambda: f"{NONE}.{BODY}."),
    "alg none, a signature": (Refusal.ALGORITHM, lambda: f"{NONE}.{BODY}.AA"),
    "alg None": (Refusal.ALGORITHM, lambda: sign(ED | {"alg": "None"}, CLAIMS)),
    "alg missing": (Refusal.ALGORITHM, lambda: sign({"kid": "ed"}, CLAIMS)),
    "alg null": (Refusal.ALGORITHM, lambda: sign(ED | {"alg": None}, CLAIMS)),
    "alg a list": (Refusal.ALGORITHM, lambda: sign(ED | {"alg": ["EdDSA"]}, CLAIMS)),
    "HS256 with the public key as its secret": (Refusal.ALGORITHM, lambda: hmac("HS256", "rsa", PUBLIC_PEM)),
    "HS512 with the shared key of the set": (
        Refusal.ALGORITHM,
        lambda: hmac("HS512", "oct", SHARED_SECRET),
    ),
    "an algorithm of another kind of key": (Refusal.ALGORITHM, lambda: sign(ED | {"alg": "RS256"}, CLAIMS)),
    "an algorithm of another curve": (
        Refusal.ALGORITHM,
        lambda: sign({"alg": "ES256", "kid": "p384"}, CLAIMS, P256_KEY, "ES256"),
    ),
    "another algorithm than that of the key": (
        Refusal.ALGORITHM,
        lambda: sign({"alg": "PS256", "kid": "rs256"}, CLAIMS, RSA_KEY, "PS256"),
    ),
    "ES256K": (Refusal.ALGORITHM, lambda: sign(ED | {"alg": "ES256K"}, CLAIMS)),
    "a stranger's key": (Refusal.SIGNATURE, lambda: sign(ED, CLAIMS, STRANGER)),
    "a shared key of the set": (Refusal.UNKNOWN_KEY, lambda: sign(ED | {"kid": "oct"}, CLAIMS)),
    "a key of the set with its private part": (
        Refusal.UNKNOWN_KEY,
        lambda: sign(ED | {"kid": "private"}, CLAIMS, LEAKED_KEY),
    ),
    "kid of another key": (
        Refusal.SIGNATURE,
        lambda: sign({"alg": "ES256", "kid": "p256"}, CLAIMS, ec.generate_private_key(ec.SECP256R1()), "ES256"),
    ),
    "kid unknown": (Refusal.UNKNOWN_KEY, lambda: token(header={"kid": "nobody"})),
    "kid missing": (Refusal.HEADER, lambda: sign({"alg": "EdDSA"}, CLAIMS)),
    "kid empty": (Refusal.HEADER, lambda: token(header={"kid": ""})),
    "kid a number": (Refusal.HEADER, lambda: token(header={"kid": 1})),
    "kid a list": (Refusal.HEADER, lambda: token(header={"kid": ["ed"]})),
    "kid long": (Refusal.HEADER, lambda: token(header={"kid": "x" * 201})),
    "kid a path": (Refusal.UNKNOWN_KEY, lambda: token(header={"kid": "../../../dev/null"})),
    "kid an address": (Refusal.UNKNOWN_KEY, lambda: token(header={"kid": "http://127.0.0.1:1/jwks.json"})),
    "kid with SQL": (Refusal.UNKNOWN_KEY, lambda: token(header={"kid": "' OR 1=1 --"})),
    "kid with a NUL": (Refusal.UNKNOWN_KEY, lambda: token(header={"kid": "ed\0"})),
    "kid that is no text": (Refusal.UNKNOWN_KEY, lambda: token(header={"kid": "\ud800"})),
    "jku": (Refusal.HEADER, lambda: token(header={"jku": "https://attacker.example/jwks.json"})),
    "x5u": (Refusal.HEADER, lambda: token(header={"x5u": "https://attacker.example/x.pem"})),
    "jwk": (
        Refusal.HEADER,
        lambda: sign(ED | {"jwk": OKPAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)}, CLAIMS, STRANGER),
    ),
    "crit": (Refusal.HEADER, lambda: token(header={"crit": ["exp"], "exp": 1})),
    "b64": (Refusal.SIGNATURE, lambda: token(header={"b64": False})),
    "typ of another kind of token": (Refusal.HEADER, lambda: token(header={"typ": "logout+jwt"})),
    "typ null": (Refusal.HEADER, lambda: token(header={"typ": None})),
    "header with a member twice": (Refusal.MALFORMED, lambda: sign(b'{"alg":"none","alg":"EdDSA","kid":"ed"}', CLAIMS)),
    "header a list": (Refusal.MALFORMED, lambda: sign(b'["EdDSA","ed"]', CLAIMS)),
    "header nested deeply": (Refusal.MALFORMED, lambda: f"{b64(b'[' * 5000)}.{b64(b'{}')}.AA"),
    "header no JSON": (Refusal.MALFORMED, lambda: "AAAA.AAAA.AAAA"),
    "header UTF-16": (Refusal.MALFORMED, lambda: sign('{"alg":"EdDSA","kid":"ed"}'.encode("utf-16"), CLAIMS)),
    "header that ends in the middle of a byte": (Refusal.MALFORMED, lambda: f"A.{BODY}.AAAA"),
    "claims changed": (Refusal.SIGNATURE, lambda: swapped(1, json.dumps(CLAIMS | {"accounts": "*"}).encode())),
    "header changed": (Refusal.SIGNATURE, lambda: swapped(0, b'{"kid":"ed","alg":"EdDSA"}')),
    "signature short": (Refusal.SIGNATURE, lambda: swapped(2, b"x" * 63)),
    "signature of zeros": (
        Refusal.SIGNATURE,
        lambda: ".".join((b64(b'{"alg":"ES256","kid":"p256"}'), BODY, b64(bytes(64)))),  # CVE-2022-21449.
    ),
    "signature of nothing": (Refusal.SIGNATURE, lambda: f"{b64(json.dumps(ED).encode())}.{BODY}.AA"),
    "claims no JSON": (Refusal.MALFORMED, lambda: sign(ED, b"hello")),
    "claims a list": (Refusal.MALFORMED, lambda: sign(ED, b"[]")),
    "claims not UTF-8": (Refusal.MALFORMED, lambda: sign(ED, b'{"sub":"\xff"}')),
    "claims nested deeply": (Refusal.MALFORMED, lambda: raw_claims(',"a":' + "[" * 3000 + "]" * 2000)),
    "claims with a number of 5000 digits": (Refusal.MALFORMED, lambda: raw_claims(',"a":' + "9" * 5000)),
    "claims with NaN": (Refusal.MALFORMED, lambda: raw_claims(',"a":NaN')),
    "claims with infinity": (Refusal.MALFORMED, lambda: raw_claims(',"a":[-Infinity]')),
    "a token in a token": (Refusal.MALFORMED, lambda: sign(ED | {"cty": "JWT"}, token().encode())),
    "sub twice": (Refusal.MALFORMED, lambda: raw_claims(',"sub":"admin"')),
    "exp twice": (Refusal.MALFORMED, lambda: raw_claims(f',"exp":{T + 9999}')),
    "exp twice, once escaped": (Refusal.MALFORMED, lambda: raw_claims(f',"\\u0065xp":{T + 9999}')),
    "a member of a member twice": (Refusal.MALFORMED, lambda: raw_claims(',"a":{"b":1,"b":2}')),
    "iss of another": (Refusal.ISSUER, lambda: token(iss="https://issuer.example/")),
    "iss missing": (Refusal.ISSUER, lambda: token(iss=None)),
    "iss a list": (Refusal.ISSUER, lambda: token(iss=[RULES.issuer])),
    "aud of another": (Refusal.AUDIENCE, lambda: token(aud="close-apis")),
    "aud in upper case": (Refusal.AUDIENCE, lambda: token(aud="CLOSE-API")),
    "aud missing": (Refusal.AUDIENCE, lambda: token(aud=None)),
    "aud empty": (Refusal.AUDIENCE, lambda: token(aud=[])),
    "aud with more than text": (Refusal.AUDIENCE, lambda: token(aud=[RULES.audience, 5])),
    "aud an object": (Refusal.AUDIENCE, lambda: token(aud={RULES.audience: 1})),
    "exp past": (Refusal.EXPIRED, lambda: token(exp=T - 30)),
    "exp 0": (Refusal.EXPIRED, lambda: token(exp=0)),
    "exp missing": (Refusal.TIMES, lambda: sign(ED, without("exp"))),
    "exp null": (Refusal.TIMES, lambda: sign(ED, CLAIMS | {"exp": None})),
    "exp text": (Refusal.TIMES, lambda: token(exp=str(T + 600))),
    "exp a fraction": (Refusal.TIMES, lambda: token(exp=T + 600.5)),
    "exp true": (Refusal.TIMES, lambda: token(exp=True)),
    "exp below 0": (Refusal.TIMES, lambda: token(exp=-1)),
    "exp in milliseconds": (Refusal.TIMES, lambda: token(exp=(T + 600) * 1000)),
    "exp huge": (Refusal.TIMES, lambda: token(exp=10**400)),
    "exp with a huge exponent": (
        Refusal.TIMES,
        lambda: sign(ED, json.dumps(without("exp"))[:-1].encode() + b',"exp":1e999}'),
    ),
    "exp NaN": (Refusal.MALFORMED, lambda: token(exp=float("nan"))),
    "exp infinite": (Refusal.MALFORMED, lambda: token(exp=float("inf"))),
    "exp a list": (Refusal.TIMES, lambda: token(exp=[T + 600])),
    "nbf to come": (Refusal.NOT_YET_VALID, lambda: token(nbf=T + 31)),
    "nbf text": (Refusal.TIMES, lambda: token(nbf=str(T))),
    "iat to come": (Refusal.NOT_YET_VALID, lambda: token(iat=T + 31)),
    "iat a fraction": (Refusal.TIMES, lambda: token(iat=T + 0.5)),
    "sub missing": (Refusal.SUBJECT, lambda: token(sub=None)),
    "sub empty": (Refusal.SUBJECT, lambda: token(sub="")),
    "sub long": (Refusal.SUBJECT, lambda: token(sub="x" * 201)),
    "sub a number": (Refusal.SUBJECT, lambda: token(sub=5)),
    "sub with a line end": (Refusal.SUBJECT, lambda: token(sub="a\nb")),
    "sub with a NUL": (Refusal.SUBJECT, lambda: token(sub="a\0b")),
    "sub that is no text": (Refusal.SUBJECT, lambda: token(sub="\udc80")),
    "more than 8 KiB": (Refusal.TOO_LONG, lambda: token(extra="x" * 6100)),
    "a megabyte": (Refusal.TOO_LONG, lambda: "A" * 1_000_000),
    "empty": (Refusal.MALFORMED, lambda: ""),
    "two parts": (Refusal.MALFORMED, lambda: token().rpartition(".")[0]),
    "four parts": (Refusal.MALFORMED, lambda: token() + ".AAAA"),
    "five parts": (Refusal.MALFORMED, lambda: "AAAA.BBBB.CCCC.DDDD.EEEE"),
    "three empty parts": (Refusal.MALFORMED, lambda: ".."),
    "padding": (Refusal.MALFORMED, lambda: token() + "=="),
    "spaces inside": (Refusal.MALFORMED, lambda: token().replace(".", " ")),
    "two tokens": (Refusal.MALFORMED, lambda: f"{token()}, {token()}"),
    "two headers made one": (Refusal.MALFORMED, lambda: f"{token()},Bearer {token()}"),
    "a line end": (Refusal.MALFORMED, lambda: token() + "\n"),
    "a line end inside": (Refusal.MALFORMED, lambda: token().replace(".", "\r\n.")),
    "letters that are not ASCII": (Refusal.MALFORMED, lambda: "ключ.ключ.ключ"),
    "digits that are not ASCII": (Refusal.MALFORMED, lambda: token() + "٣"),
    "bytes that are no text": (Refusal.MALFORMED, lambda: token() + "\udcff"),
    "a NUL": (Refusal.MALFORMED, lambda: token() + "\0"),
}


@pytest.mark.parametrize(("refusal", "make"), BAD.values(), ids=BAD)
async def test_a_bad_token_is_refused_and_named_nowhere(
    caplog: pytest.LogCaptureFixture, refusal: Refusal, make: Callable[[], str]
) -> None:
    given = make()
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as ours:
        challenge = await refused(TAKEN, f"Bearer {given}")
        assert await refused(TAKEN, f"Bearer {given}") == challenge
    assert challenge == f'Bearer realm="closeflow", error="invalid_token", error_description="{EXPLAINED[refusal]}"'
    assert not ours
    # The Kafka clients of other tests go on in the same loop, and say what they like.
    assert not [record for record in caplog.records if not record.name.startswith("aiokafka")]


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Basic dXNlcjpwYXNzd29yZA==", "Bearer\t" + "x.y.z", "x.y.z"]
)
async def test_who_sends_no_token_is_asked_for_one(authorization: str | None) -> None:
    if authorization == "Bearer":
        assert "invalid_token" in await refused(TAKEN, authorization)
    else:
        assert await refused(TAKEN, authorization) == 'Bearer realm="closeflow"'


ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


@given(st.one_of(st.text(max_size=200), st.text(ALPHABET, max_size=200), st.from_regex(r"\A(?:[\w-]+\.){2}[\w-]+\Z")))
async def test_no_text_at_all_is_taken_or_raises_another_error(text: str) -> None:
    await refused(TAKEN, f"Bearer {text}")


@given(st.integers(min_value=0), st.characters(codec="utf-8"))
async def test_a_token_with_one_character_changed_is_another(place: int, character: str) -> None:
    at = place % len(GOOD)
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    if changed == GOOD:
        assert (await TAKEN.caller(f"Bearer {changed}")).subject == "portfolio"
    else:
        await refused(TAKEN, f"Bearer {changed}")
