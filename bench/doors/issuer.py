"""The issuer of the bench's tokens: an Ed25519 key made for one run, and what close-api needs to know of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

_ISSUER: Final = "https://bench.invalid"
_AUDIENCE: Final = "close-api"
_KEY_ID: Final = "bench"
_LIVES_S: Final = 24 * 3600
_UNLIMITED: Final = "100000000"
"""Closes a minute that a subject may ask for."""


class Issuer:
    """Signs tokens that close-api takes when it runs with `settings`."""

    def __init__(self, directory: Path) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._jwks = directory / "jwks.json"
        public = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self._jwks.write_text(json.dumps({"keys": [{**public, "kid": _KEY_ID, "alg": "EdDSA", "use": "sig"}]}))

    @property
    def settings(self) -> Mapping[str, str]:
        """Authentication on; a subject's closes are counted and not limited."""
        return {
            "CLOSE_API_AUTH": "jwt",
            "CLOSE_API_JWKS": str(self._jwks),
            "CLOSE_API_ISSUER": _ISSUER,
            "CLOSE_API_AUDIENCE": _AUDIENCE,
            "CLOSE_API_RATE_LIMIT_CLOSES": _UNLIMITED,
        }

    def token(self, subject: str, accounts: Sequence[str]) -> str:
        """A token of a day that may close positions of these accounts."""
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + _LIVES_S,
            "scope": "close:write close:read",
            "accounts": list(accounts),
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": _KEY_ID})
