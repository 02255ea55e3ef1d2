"""Bearer tokens (RFC 6750): who calls is what a JSON Web Token says that a key of the issuer has signed."""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from typing import Final, NamedTuple

from jwt import PyJWS, PyJWTError

from close_api.auth.caller import ANYONE, Caller
from close_api.auth.claims import EXPLAINED, BadToken, Refusal, TokenRules, read_claims, read_header
from close_api.auth.jwks import ALGORITHMS
from close_api.auth.keys import Keys
from close_api.errors import Code, Problem
from closeflow.clock import utc_now
from closeflow.telemetry.metrics import counter

MAX_TOKEN: Final = 8 * 1024
_SCHEME: Final = "bearer"
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
"""The serialization of RFC 7515 section 7.1."""
_JWS: Final = PyJWS(algorithms=sorted(ALGORITHMS))

REFUSED: Final = counter("close_api_tokens_refused_total")


class Disabled:
    """The Identity of AUTH=disabled, which the settings allow on loopback only: anyone is everyone."""

    async def caller(self, authorization: str | None) -> Caller:
        """ANYONE, whatever was sent."""
        return ANYONE


class _Verified(NamedTuple):
    caller: Caller
    expires_at: int


class Tokens:
    """The Identity that takes tokens of one issuer for one audience. The last `cache_size` are known again by their
    SHA-256 until they expire or the issuer's keys change; so a caller who repeats his costs no signature."""

    def __init__(self, keys: Keys, rules: TokenRules, *, cache_size: int = 10_000) -> None:
        self._keys = keys
        self._rules = rules
        self._cache_size = cache_size
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._generation = -1

    async def caller(self, authorization: str | None) -> Caller:
        """See `Identity.caller`. Neither the error nor anything logged holds a part of the token."""
        try:
            token = _token(authorization)
            self._forget_if_changed(self._keys.generation())
            digest = sha256(token.encode("ascii")).digest()
            known = self._verified.get(digest)
            if known is not None:
                if utc_now().timestamp() < known.expires_at:
                    self._verified.move_to_end(digest)
                    return known.caller
                del self._verified[digest]
            found = await self._verify(token)
        except BadToken as error:
            REFUSED.labels(error.refusal.value).inc()
            raise _problem(error.refusal) from None
        self._verified[digest] = found
        if len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)
        return found.caller

    async def _verify(self, token: str) -> _Verified:
        if not _COMPACT.fullmatch(token):
            raise BadToken(Refusal.MALFORMED)
        header = read_header(token.partition(".")[0])
        generation, key = await self._keys.find(header.kid)
        # From here to its place in the cache nothing waits, and the cache is of the set that had this key.
        self._forget_if_changed(generation)
        if key is None:
            raise BadToken(Refusal.UNKNOWN_KEY if self._keys.known else Refusal.NO_KEYS)
        if header.algorithm not in key.algorithms:
            raise BadToken(Refusal.ALGORITHM)
        try:
            payload = _JWS.decode(token, key.key, algorithms=[header.algorithm])
        except PyJWTError:
            raise BadToken(Refusal.SIGNATURE) from None
        return _Verified(*read_claims(payload, self._rules, now=utc_now().timestamp()))

    def _forget_if_changed(self, generation: int) -> None:
        if generation != self._generation:
            self._verified.clear()
            self._generation = generation


def _token(authorization: str | None) -> str:
    """What follows `Bearer`. Other schemes carry no token of ours (RFC 6750 section 3.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != _SCHEME:
        raise BadToken(Refusal.MISSING)
    token = token.strip(" ")
    if len(token) > MAX_TOKEN:
        raise BadToken(Refusal.TOO_LONG)
    if not token.isascii():
        raise BadToken(Refusal.MALFORMED)
    return token


def _problem(refusal: Refusal) -> Problem:
    challenge = 'Bearer realm="closeflow"'
    if refusal is not Refusal.MISSING:
        challenge += f', error="invalid_token", error_description="{EXPLAINED[refusal]}"'
    return Problem(Code.UNAUTHENTICATED, extra={"reason": EXPLAINED[refusal]}, headers={"www-authenticate": challenge})
