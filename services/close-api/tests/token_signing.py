"""An issuer of tokens for tests: its keys, tokens of exactly the bytes that are wanted, and a clock that stands."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from structlog.testing import capture_logs

from close_api.auth.claims import TokenRules
from close_api.auth.jwks import VerifyingKey
from close_api.auth.keys import Keys
from close_api.auth.tokens import Tokens
from close_api.errors import Code, Problem
from closeflow.clock import HostClock

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
T: Final = int(NOW.timestamp())
RULES: Final = TokenRules("https://issuer.example", "close-api", 30)
RSA_KEY: Final = rsa.generate_private_key(65537, 2048)
P256_KEY: Final = ec.generate_private_key(ec.SECP256R1())
P384_KEY: Final = ec.generate_private_key(ec.SECP384R1())
P521_KEY: Final = ec.generate_private_key(ec.SECP521R1())
ED_KEY: Final = ed25519.Ed25519PrivateKey.generate()
LEAKED_KEY: Final = ed25519.Ed25519PrivateKey.generate()
SHARED_SECRET: Final = b"shared secret of 32 bytes, or so"
ED: Final = {"alg": "EdDSA", "kid": "ed"}
JWKS: Final[dict[str, dict[str, Any]]] = {
    "rsa": RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True),
    "rs256": RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True) | {"alg": "RS256"},
    "p256": ECAlgorithm.to_jwk(P256_KEY.public_key(), as_dict=True),
    "p384": ECAlgorithm.to_jwk(P384_KEY.public_key(), as_dict=True),
    "p521": ECAlgorithm.to_jwk(P521_KEY.public_key(), as_dict=True),
    "ed": OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True),
    # Of these nobody may make use.
    "oct": {"kty": "oct", "k": base64.urlsafe_b64encode(SHARED_SECRET).decode()},
    "private": OKPAlgorithm.to_jwk(LEAKED_KEY, as_dict=True),
}
CLAIMS: Final[dict[str, Any]] = {
    "iss": RULES.issuer,
    "aud": RULES.audience,
    "sub": "portfolio",
    "exp": T + 600,
    "nbf": T,
    "iat": T,
    "accounts": ["main", "hedge"],
    "scope": "close:write openid",
}
_SIGNERS: Final = get_default_algorithms()
_CHALLENGE: Final = re.compile(r'Bearer realm="closeflow"(, error="invalid_token", error_description="[ !#-\[\]-~]+")?')


class Still(HostClock):
    """It shows NOW until it is put forward."""

    def __init__(self) -> None:
        self.by = 0.0

    def monotonic(self) -> float:
        """What it was put forward by."""
        return self.by

    def utc_now(self) -> datetime:
        """NOW, and what it was put forward by."""
        return NOW + timedelta(seconds=self.by)


class Asked(Keys):
    """Keeps which ids were looked for: for a token that is known again nothing is."""

    def __init__(self, jwks: str) -> None:
        super().__init__(jwks, max_age_s=3600)
        self.kids: list[str] = []

    async def find(self, kid: str) -> tuple[int, VerifyingKey | None]:
        """As ever, and kept."""
        self.kids.append(kid)
        return await super().find(kid)


def write_jwks(file: Path, *kids: str) -> None:
    """Replace the file by a set of these keys; of all without any."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"keys": [JWKS[kid] | {"kid": kid} for kid in kids or JWKS]}))
    new.replace(file)


def b64(raw: bytes) -> str:
    """As the parts of a token are written."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], key: Any = ED_KEY, alg: str = "EdDSA") -> str:
    """A token of exactly these bytes, signed by `key` as `alg` does, whatever the header says."""
    raw = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = f"{b64(raw[0])}.{b64(raw[1])}"
    return f"{signed}.{b64(_SIGNERS[alg].sign(signed.encode(), key))}"


def token(*, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A good one but for what is given; None leaves a claim out."""
    named = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return sign(ED | (header or {}), named)


async def refused(identity: Tokens, authorization: str | None) -> str:
    """The challenge that it gets. Also: the error is one of ours, and nothing that was sent is in it or in a log."""
    with capture_logs() as logs, pytest.raises(Problem) as raised:
        await identity.caller(authorization)
    problem = raised.value
    assert problem.code is Code.UNAUTHENTICATED
    assert problem.__suppress_context__
    told = f"{problem!r} {problem.__cause__} {problem.headers} {problem.extra} {logs}"
    for part in re.split(r"[ .]", authorization or ""):
        assert len(part) < 16 or part not in told
    challenge = problem.headers["www-authenticate"]
    assert _CHALLENGE.fullmatch(challenge)
    return challenge
