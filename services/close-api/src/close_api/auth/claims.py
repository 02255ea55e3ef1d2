"""What a token says (RFC 7519), read strictly: its header before the signature is checked, its claims afterwards.

Strictly, because two readers who disagree about one token are how forgeries pass: a member that comes twice, a number
that is text, or a NaN is refused. Nothing here looks at a clock.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from close_api.auth.caller import Caller, Scope
from close_api.auth.jwks import ALGORITHMS, MAX_KID

MAX_SUBJECT: Final = 200
MAX_ACCOUNT: Final = 128
LAST_TIME: Final = 253_402_300_799
"""The end of the year 9999: what is later was not meant as seconds."""
EVERY_ACCOUNT: Final = ("*", ["*"])
_FOREIGN_KEYS: Final = ("jku", "jwk", "x5u", "crit")
"""Headers that tell where the key is, or what else must be understood: the sender would choose his own judge."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class Refusal(StrEnum):
    """Why a token is not taken; a label of metrics."""

    MISSING = "missing"
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    HEADER = "header"
    ALGORITHM = "algorithm"
    NO_KEYS = "no_keys"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    TIMES = "times"
    SUBJECT = "subject"


EXPLAINED: Final[Mapping[Refusal, str]] = {
    Refusal.MISSING: "no bearer token was sent",
    Refusal.MALFORMED: "the token is not a signed JSON Web Token",
    Refusal.TOO_LONG: "the token is longer than 8 KiB",
    Refusal.HEADER: "the header of the token has members that are not accepted, or lacks kid",
    Refusal.ALGORITHM: "the algorithm of the token is not accepted for its key",
    Refusal.NO_KEYS: "the keys of the issuer cannot be read at present",
    Refusal.UNKNOWN_KEY: "the issuer has no key of this kid",
    Refusal.SIGNATURE: "the signature does not match",
    Refusal.ISSUER: "the token is of another issuer",
    Refusal.AUDIENCE: "the token is for another audience",
    Refusal.EXPIRED: "the token has expired",
    Refusal.NOT_YET_VALID: "the token is not valid yet",
    Refusal.TIMES: "exp is missing, or exp, nbf or iat is not a whole number of seconds since 1970",
    Refusal.SUBJECT: "sub is missing, or not 1 to 200 printable characters",
}
"""For the caller, in the characters of an error_description (RFC 6750 section 3): no quotes."""


class BadToken(Exception):
    """A token is not taken. Holds nothing of it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Header:
    """Which key the token asks for, by its id in the issuer's set, and how it is signed."""

    kid: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Whose tokens are taken, and for whom; `leeway_s` is how far the clocks of issuer and service may differ."""

    issuer: str
    audience: str
    leeway_s: float = 30.0


def read_header(segment: str) -> Header:
    """The header of a token whose signature nobody has checked yet. Raises BadToken."""
    try:
        header = read_object(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except ValueError:
        raise BadToken(Refusal.MALFORMED) from None
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken(Refusal.ALGORITHM)
    if any(name in header for name in _FOREIGN_KEYS) or not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadToken(Refusal.HEADER)
    if not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise BadToken(Refusal.HEADER)
    return Header(kid, algorithm)


def read_claims(payload: bytes, rules: TokenRules, *, now: float) -> tuple[Caller, int]:
    """Who the token is about, and its `exp`, by the time `now` in seconds since 1970. Raises BadToken."""
    try:
        claims = read_object(payload)
    except ValueError:
        raise BadToken(Refusal.MALFORMED) from None
    issuer, audience, subject = claims.get("iss"), claims.get("aud"), claims.get("sub")
    if not isinstance(issuer, str) or issuer != rules.issuer:
        raise BadToken(Refusal.ISSUER)
    audiences = audience if isinstance(audience, list) else [audience]
    if rules.audience not in audiences or not all(isinstance(one, str) for one in audiences):
        raise BadToken(Refusal.AUDIENCE)
    expires_at = _check_times(claims, rules, now)
    if not (isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT and subject.isprintable()):
        raise BadToken(Refusal.SUBJECT)
    return Caller(subject, _accounts(claims.get("accounts")), _scopes(claims.get("scope"))), expires_at


def read_object(body: bytes) -> dict[str, object]:
    """A JSON object without a member that comes twice. Raises ValueError."""
    try:
        found = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _check_times(claims: Mapping[str, object], rules: TokenRules, now: float) -> int:
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise BadToken(Refusal.TIMES)
    if now >= expires_at + rules.leeway_s:
        raise BadToken(Refusal.EXPIRED)
    for name in ("nbf", "iat"):
        begins_at = _time(claims, name)
        if begins_at is not None and now + rules.leeway_s < begins_at:
            raise BadToken(Refusal.NOT_YET_VALID)
    return expires_at


def _time(claims: Mapping[str, object], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LAST_TIME:
        raise BadToken(Refusal.TIMES)
    return value


def _accounts(claim: object) -> frozenset[str] | None:
    """None is every account. What no account can be called grants nothing, and neither does a claim of another type."""
    if claim in EVERY_ACCOUNT:
        return None
    if not isinstance(claim, list):
        return frozenset()
    return frozenset(
        one
        for one in claim
        if isinstance(one, str) and 0 < len(one) <= MAX_ACCOUNT and one.isprintable() and one != "*"
    )


def _scopes(claim: object) -> frozenset[Scope]:
    """Of a text with spaces between them (RFC 8693 section 4.2), or of a list; others than ours grant nothing."""
    named = claim.split(" ") if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(scope for scope in Scope if scope.value in named)


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member comes twice")
    return found


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
