"""Read a close as the caller wrote it: the body, the key, the ids. Whatever is wrong becomes a Problem, never a 500."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from close_api.close_body import EMPTY, MAX_POSITION_ID, CloseBody, read_key_text, read_reason, read_values
from close_api.errors import MOST_FIELD_ERRORS, Code, FieldError, Problem, field_problem
from closeflow.clock import timeout

MAX_BODY_BYTES: Final = 64 * 1024
MAX_BATCH_BYTES: Final = 1024 * 1024
KEY_HEADER: Final = "idempotency-key"
BROKEN: Final = "closeflow.broken"
"""In the scope of a call behind which the server found bytes that begin no other: its body was longer than it said."""
_POSITION_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r'\\(["\\])')


async def read_close(request: Request, *, deadline_s: float) -> CloseBody:
    """The body of a close; an empty one means every default."""
    raw = await read_body(request, deadline_s=deadline_s, at_most=MAX_BODY_BYTES)
    return read_values(parse_object(raw)) if raw else EMPTY


async def read_cancel(request: Request, *, deadline_s: float) -> str | None:
    """The reason of a cancel; None where none is given."""
    raw = await read_body(request, deadline_s=deadline_s, at_most=MAX_BODY_BYTES)
    values = parse_object(raw) if raw else {}
    unknown = [name for name in values if name != "reason"]
    if unknown:
        raise unknown_fields(unknown)
    return read_reason(values["reason"]) if values else None


def unknown_fields(names: Iterable[str]) -> Problem:
    """What a body must not have."""
    told = islice(names, MOST_FIELD_ERRORS)
    return field_problem(*(FieldError(name[:100], "is not a field of this call; remove it") for name in told))


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object with its numbers as Decimal; refuses other JSON, a name given twice, what is nested too deep, and
    text that is none."""
    if not raw:
        raise Problem(Code.MALFORMED_BODY, extra={"reason": "there is none, and this call needs one"})
    try:
        values = _DECODER.decode(raw.decode())
        if b"\\u" in raw:
            _refuse_half_characters(values)
    except (ValueError, ArithmeticError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "a number or the nesting is out of bounds"
        raise Problem(Code.MALFORMED_BODY, extra={"reason": reason[:200]}) from None
    if not isinstance(values, dict):
        raise Problem(Code.MALFORMED_BODY, extra={"reason": "not an object"})
    return values


def read_key(request: Request) -> str:
    """The idempotency key, without the quotes of a structured field (RFC 8941 section 3.3.3)."""
    given = request.headers.getlist(KEY_HEADER)
    if not given:
        raise Problem(Code.IDEMPOTENCY_KEY_MISSING)
    key = given[0].strip(" \t")
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""
    if len(given) > 1 or not key:
        raise Problem(Code.IDEMPOTENCY_KEY_INVALID)
    return read_key_text(key)


def read_position_id(text: str, name: str = "position_id") -> int:
    """From 1 to 2^63 - 1 in plain digits. Raises Problem `invalid_fields`."""
    if not _POSITION_ID.fullmatch(text) or int(text) > MAX_POSITION_ID:
        raise field_problem(FieldError(name, f"must be a whole number from 1 to {MAX_POSITION_ID}"))
    return int(text)


async def read_body(request: Request, *, deadline_s: float, at_most: int) -> bytes:
    """The whole body within `deadline_s` seconds and `at_most` bytes; empty where there is none."""
    length = request.headers.get("content-length")
    if length is None and "transfer-encoding" not in request.headers:
        return _refuse_broken(request, b"")
    if length is not None and int(length) > at_most:  # The server has refused a length that is no number.
        raise Problem(Code.BODY_TOO_LARGE)
    raw = bytearray()
    try:
        async with timeout(deadline_s):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > at_most:
                    raise Problem(Code.BODY_TOO_LARGE)
    except (TimeoutError, ClientDisconnect):
        raise Problem(Code.BODY_TOO_SLOW, headers={"connection": "close"}) from None
    return _refuse_broken(request, bytes(raw))


def _refuse_broken(request: Request, raw: bytes) -> bytes:
    if BROKEN in request.scope:
        raise Problem(Code.MALFORMED_BODY, extra={"reason": "something that is no call comes behind it"})
    return raw


def _refuse_half_characters(values: object) -> None:
    """Raises ValueError for half of a surrogate pair (RFC 8259 section 8.2), which no answer could repeat."""
    json.dumps(values, ensure_ascii=False, default=str).encode()


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{json.dumps(name[:40])} is given twice")
        found[name] = value
    return found


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal
)
"""Made once: making it takes longer than reading a close."""
