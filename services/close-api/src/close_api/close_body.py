"""What a close may say, read the same way whichever door it came through: values in, a command or a Problem out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from close_api.auth.caller import Caller
from close_api.errors import MOST_FIELD_ERRORS, Code, FieldError, Problem, field_problem
from closeflow.clock import utc_now
from closeflow.contracts.ids import new_close_request_id
from closeflow.domain.close.accept import ALL, WORKING_TIMEOUT_S, CloseCommand
from closeflow.domain.model import AssetType, OrderType, TimeInForce

MAX_POSITION_ID: Final = 2**63 - 1
MAX_REASON: Final = 500
LONGEST_WORKING_TIMEOUT_S: Final = 86_400
MAX_SLIPPAGE_BPS: Final = 10_000
_WHOLE_DIGITS: Final = 15
_FRACTION_DIGITS: Final = 18
_MESSAGES: Final[Mapping[str, str]] = {
    "extra_forbidden": "is not a field of this call; remove it",
    "missing": "is missing; give it",
    "bool_type": "must be true or false",
}
"""What pydantic finds, by its type of error, in words that say how to mend it."""
_KEY: Final = re.compile(r"[\x20-\x7e]{1,100}")
_REQUEST_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DECIMAL: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
# RFC 3339 section 5.6, with what it requires: a time of day and an offset.
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def bounded(value: object) -> Decimal:
    """A number exactly as it was written, bounded before anything formats it, so that 1e999999 costs nothing. Raises
    ValueError."""
    if not isinstance(value, Decimal):
        raise ValueError("must be a JSON number; leave it out for the default")
    if not value.is_finite():
        raise ValueError("must be a finite number")
    # Arithmetic would overflow beyond the exponents of a context; `adjusted` is the exponent of the first digit.
    exponent = value.as_tuple().exponent if value.adjusted() < _WHOLE_DIGITS else None
    if not isinstance(exponent, int) or exponent < -_FRACTION_DIGITS:
        raise ValueError(f"must be below 1e15 with at most {_FRACTION_DIGITS} digits after the point")
    return value


def positive(value: object) -> Decimal:
    """A number above 0, as `bounded`."""
    if isinstance(value, Decimal) and not (value.is_finite() and value > 0):
        raise ValueError("must be a finite number greater than 0")
    return bounded(value)


def _percentage(value: object) -> Decimal:
    found = positive(value)
    if found > ALL:
        raise ValueError("must be greater than 0 and at most 100")
    return found


def _whole(value: object) -> int:
    found = bounded(value)
    if found != found.to_integral_value():
        raise ValueError("must be a whole number")
    return int(found)


def moment(value: object) -> datetime:
    """A time with an offset, in UTC. Raises ValueError."""
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("must be a time with an offset, such as 2026-03-02T15:00:00Z (RFC 3339)")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is not a time that exists") from None


def words(value: object) -> str:
    """What somebody says in his own words. Raises ValueError."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_REASON or not value.isprintable():
        raise ValueError(f"must be 1 to {MAX_REASON} printable characters")
    return value


def _given(value: object) -> object:
    if value is None:
        raise ValueError("must be a text; leave it out for the default")
    return value


def _between(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        found = _whole(value)
        if not low <= found <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return found

    return check


_Quantity = Annotated[
    Decimal | None,
    PlainValidator(positive),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10**15}),
]
_Percentage = Annotated[
    Decimal | None,
    PlainValidator(_percentage),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100}),
]
_Signed = Annotated[
    Decimal | None,
    PlainValidator(bounded),
    WithJsonSchema({"type": "number", "exclusiveMinimum": -(10**15), "exclusiveMaximum": 10**15}),
]
_Slippage = Annotated[
    int | None,
    PlainValidator(_between(0, MAX_SLIPPAGE_BPS)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_SLIPPAGE_BPS}),
]
_Timeout = Annotated[
    int | None,
    PlainValidator(_between(1, LONGEST_WORKING_TIMEOUT_S)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LONGEST_WORKING_TIMEOUT_S}),
]
_Moment = Annotated[datetime | None, PlainValidator(moment), WithJsonSchema({"type": "string", "format": "date-time"})]
_TimeInForce = Annotated[
    TimeInForce | None,
    BeforeValidator(_given),
    WithJsonSchema({"type": "string", "enum": [one.value for one in TimeInForce]}),
]
_Reason = Annotated[
    str | None, PlainValidator(words), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_REASON})
]


class CloseBody(BaseModel):
    """What to close. Everything may be left out: an empty body closes the whole position with a limit order, priced
    from the market. A field is left out rather than null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: _Quantity = Field(None, description="Unsigned; at most the position's. Not with percentage.")
    percentage: _Percentage = Field(None, description="Of the position, rounded down to the lot. Not with quantity.")
    order_type: OrderType = Field(OrderType.LIMIT, description="A market order takes no limit_price and no slippage.")
    limit_price: _Quantity = Field(None, description="The price of every attempt; by default the market's.")
    max_slippage_bps: _Slippage = Field(
        None, description="Basis points from the mid that the price may give up. Not with limit_price."
    )
    time_in_force: _TimeInForce = Field(None, description="FIX 59; by default day, for crypto gtc.")
    working_timeout_seconds: _Timeout = Field(
        None, description=f"After which a working order is cancelled and priced anew; {WORKING_TIMEOUT_S} by default."
    )
    deadline: _Moment = Field(None, description="After which nothing is sent any more and the close fails.")
    expected_quantity: _Signed = Field(
        None, description="The close is refused unless the position has this quantity, signed as it is shown."
    )
    reason: _Reason = Field(None, description="Your own words, kept with the request.")
    dry_run: bool = Field(False, strict=True, description="Make every check, keep nothing, send nothing.")

    @model_validator(mode="after")
    def _refuse_contradiction(self) -> Self:
        market = self.order_type is OrderType.MARKET
        if self.quantity is not None and self.percentage is not None:
            raise ValueError("percentage: is not given together with quantity; leave one of them out")
        if market and self.limit_price is not None:
            raise ValueError("limit_price: a market order has none; leave it out, or use order_type limit")
        if self.max_slippage_bps is not None and (market or self.limit_price is not None):
            raise ValueError("max_slippage_bps: bounds a price taken from the market; leave it out here")
        return self


EMPTY: Final = CloseBody()


def read_values(values: Mapping[str, object]) -> CloseBody:
    """The fields as a door read them: numbers as Decimal, the rest as JSON has it. Raises Problem `invalid_fields`."""
    if not values:
        return EMPTY
    try:
        return CloseBody.model_validate(values)
    except ValidationError as error:
        raise field_problem(*field_errors(error)) from None


def field_errors(error: ValidationError) -> list[FieldError]:
    """What pydantic found, by the names that the caller used."""
    return [_field_error(one) for one in error.errors(include_url=False, include_input=False)[:MOST_FIELD_ERRORS]]


def decimal_of(text: str, name: str) -> Decimal:
    """A decimal from plain digits, as messages carry it. Raises Problem `invalid_fields`."""
    if not _DECIMAL.fullmatch(text):
        raise field_problem(FieldError(name, "must be a decimal number in plain digits, such as 10 or 0.5"))
    try:
        return Decimal(text)
    except InvalidOperation:
        raise field_problem(FieldError(name, "must be a decimal number")) from None


def read_key_text(key: str) -> str:
    """The bare key. Raises Problem `idempotency_key_missing` or `idempotency_key_invalid`."""
    if not key:
        raise Problem(Code.IDEMPOTENCY_KEY_MISSING)
    if not _KEY.fullmatch(key):
        raise Problem(Code.IDEMPOTENCY_KEY_INVALID)
    return key


def check_position_id(position_id: object) -> int:
    """From 1 to 2^63 - 1. Raises Problem `invalid_fields`."""
    if isinstance(position_id, Decimal):
        position_id = whole_within(position_id, MAX_POSITION_ID)
    if isinstance(position_id, int) and not isinstance(position_id, bool) and 1 <= position_id <= MAX_POSITION_ID:
        return position_id
    raise field_problem(FieldError("position_id", f"must be a whole number from 1 to {MAX_POSITION_ID}"))


def read_request_id(text: str) -> UUID:
    """A UUID in its usual form, in either case. Raises Problem `invalid_fields`."""
    if not _REQUEST_ID.fullmatch(text):
        raise field_problem(FieldError("close_request_id", "must be a UUID"))
    return UUID(text)


def whole_within(value: Decimal, most: int) -> int | None:
    """A number that was written as a whole one, at most `most` either way; None for any other. It is compared before it
    is made an int, which of a million digits takes a minute."""
    if value.is_finite() and -most <= value <= most and value.as_tuple().exponent == 0:
        return int(value)
    return None


def read_moment(value: object, name: str) -> datetime:
    """A time with an offset (RFC 3339). Raises Problem `invalid_fields`."""
    try:
        return moment(value)
    except ValueError as error:
        raise field_problem(FieldError(name, str(error))) from None


def read_reason(value: object) -> str:
    """Words of the caller's own. Raises Problem `invalid_fields`."""
    try:
        return words(value)
    except ValueError as error:
        raise field_problem(FieldError("reason", str(error))) from None


def close_command(
    caller: Caller,
    *,
    position_id: int,
    key: str,
    body: CloseBody,
    traceparent: str,
    only: AssetType | None = None,
    expected_version: int | None = None,
) -> CloseCommand:
    """The command of one close, under a new id that it gets if it is accepted."""
    return CloseCommand(
        request_id=new_close_request_id(utc_now(), os.urandom(10)),
        position_id=position_id,
        idempotency_key=key,
        requested_by=caller.subject,
        accounts=caller.accounts,
        only=only,
        quantity=body.quantity,
        percentage=body.percentage,
        order_type=body.order_type,
        limit_price=body.limit_price,
        max_slippage_bps=body.max_slippage_bps,
        time_in_force=body.time_in_force,
        working_timeout_s=body.working_timeout_seconds or WORKING_TIMEOUT_S,
        deadline_at=body.deadline,
        expected_quantity=body.expected_quantity,
        expected_version=expected_version,
        reason=body.reason,
        dry_run=body.dry_run,
        traceparent=traceparent,
    )


def _field_error(error: Any) -> FieldError:
    message = _MESSAGES.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    if error["loc"]:
        return FieldError(str(error["loc"][0])[:100], message.replace("Input should be", "must be", 1))
    name, _, message = message.partition(": ")
    return FieldError(name, message)
