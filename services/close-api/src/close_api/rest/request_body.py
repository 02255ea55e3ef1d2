"""Read a close as the caller wrote it: the body, the key, the ids. Whatever is wrong becomes a Problem, never a 500."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, WithJsonSchema, model_validator
from starlette.requests import ClientDisconnect, Request

from close_api.errors import Code, FieldError, Problem, field_problem
from closeflow.clock import timeout
from closeflow.domain.model import OrderType

MAX_BODY_BYTES: Final = 64 * 1024
MAX_POSITION_ID: Final = 2**63 - 1
KEY_HEADER: Final = "idempotency-key"
BROKEN: Final = "closeflow.broken"
"""In the scope of a call behind which the server found bytes that begin no other: its body was longer than it said."""
_LIMIT: Final = Decimal(10) ** 15
_FRACTION_DIGITS: Final = 18
_MAX_FIELD_ERRORS: Final = 20
_POSITION_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
_REQUEST_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_KEY: Final = re.compile(r"[\x20-\x7e]{1,100}")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r'\\(["\\])')


def _exact(value: object) -> Decimal:
    """A JSON number exactly as it was written, bounded before anything formats it, so that 1e999999 costs nothing."""
    if not isinstance(value, Decimal):
        raise ValueError("must be a JSON number; leave it out for the default")
    if not value.is_finite() or value <= 0:
        raise ValueError("must be a finite number greater than 0")
    exponent = value.as_tuple().exponent
    if value >= _LIMIT or not isinstance(exponent, int) or exponent < -_FRACTION_DIGITS:
        raise ValueError(f"must be below 1e15 with at most {_FRACTION_DIGITS} digits after the point")
    return value


_Exact = Annotated[
    Decimal | None,
    PlainValidator(_exact),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10**15}),
]


class CloseBody(BaseModel):
    """What to close. Everything may be left out: an empty body closes the whole position with a limit order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: _Exact = None
    order_type: OrderType = OrderType.LIMIT
    limit_price: _Exact = None

    @model_validator(mode="after")
    def _refuse_contradiction(self) -> Self:
        if self.order_type is OrderType.MARKET and self.limit_price is not None:
            raise ValueError("limit_price: a market order has none; leave it out, or use order_type limit")
        return self


_EMPTY: Final = CloseBody()


async def read_close(request: Request, *, deadline_s: float) -> CloseBody:
    """The body of a close; an empty one means every default."""
    raw = await _read(request, deadline_s)
    if not raw:
        return _EMPTY
    values = parse_object(raw)
    try:
        return CloseBody.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)[:_MAX_FIELD_ERRORS]
        raise field_problem(*map(_field_error, errors)) from None


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object with its numbers as Decimal; refuses other JSON, a name given twice and what is nested too deep."""
    try:
        values = json.loads(
            raw.decode(), object_pairs_hook=_unique, parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal
        )
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
    key = given[0].strip()
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""
    if len(given) > 1 or not _KEY.fullmatch(key):
        raise Problem(Code.IDEMPOTENCY_KEY_INVALID)
    return key


def read_position_id(text: str) -> int:
    """From 1 to 2^63 - 1 in plain digits. Raises Problem `invalid_fields`."""
    if not _POSITION_ID.fullmatch(text) or int(text) > MAX_POSITION_ID:
        raise field_problem(FieldError("position_id", f"must be a whole number from 1 to {MAX_POSITION_ID}"))
    return int(text)


def read_request_id(text: str) -> UUID:
    """A UUID in its usual form, in either case. Raises Problem `invalid_fields`."""
    if not _REQUEST_ID.fullmatch(text):
        raise field_problem(FieldError("close_request_id", "must be a UUID"))
    return UUID(text)


async def _read(request: Request, deadline_s: float) -> bytes:
    length = request.headers.get("content-length")
    if length is None and "transfer-encoding" not in request.headers:
        return _refuse_broken(request, b"")
    if length is not None and int(length) > MAX_BODY_BYTES:  # The server has refused a length that is no number.
        raise Problem(Code.BODY_TOO_LARGE)
    raw = bytearray()
    try:
        async with timeout(deadline_s):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > MAX_BODY_BYTES:
                    raise Problem(Code.BODY_TOO_LARGE)
    except (TimeoutError, ClientDisconnect):
        raise Problem(Code.BODY_TOO_SLOW, headers={"connection": "close"}) from None
    return _refuse_broken(request, bytes(raw))


def _refuse_broken(request: Request, raw: bytes) -> bytes:
    if BROKEN in request.scope:
        raise Problem(Code.MALFORMED_BODY, extra={"reason": "something that is no call comes behind it"})
    return raw


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{json.dumps(name[:40])} is given twice")
        found[name] = value
    return found


def _field_error(error: Any) -> FieldError:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["loc"]:
        unknown = error["type"] == "extra_forbidden"
        return FieldError(str(error["loc"][0])[:100], "is not a field of this call; remove it" if unknown else message)
    name, _, message = message.partition(": ")
    return FieldError(name, message)
