"""The base of every wire model and the types its fields are made of.

On the wire a decimal is a string without exponent, so that no reader in any language passes it through a binary float,
and a time is RFC 3339. Readers ignore fields they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

MAX_BYTES: Final = 1024 * 1024
"""The largest value a reader accepts; Kafka's own default for `message.max.bytes` is about the same."""

FRACTION_DIGITS: Final = 18
LIMIT: Final = Decimal(10) ** 15
"""Quantities and prices are below this and have at most 18 digits after the point: `numeric(33, 18)` holds them."""

MONEY_FRACTION_DIGITS: Final = 3 * FRACTION_DIGITS
MONEY_LIMIT: Final = Decimal(10) ** 45
"""A cash amount is the exact product of a quantity, a price and a multiplier."""

_DECIMAL: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_NOTE_LENGTH: Final = 500
_NAME_LENGTH: Final = 128
_LONG: Final = 1000
_SMALLEST: Final = Decimal(1).scaleb(-FRACTION_DIGITS)
_EXACT: Final = Context(prec=2 * _LONG)
_MAX_ID: Final = 2**63 - 1


class WireModel(BaseModel):
    """A message as it crosses a process border: immutable, and tolerant of fields a newer writer added."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    SCHEMA: ClassVar[str]
    """The name of the contract without its version, as in `schemas/json/<SCHEMA>.v<VERSION>.json`."""
    VERSION: ClassVar[int] = 1


def _read_decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str) and len(value) <= 128 and _DECIMAL.fullmatch(value):
        return Decimal(value)
    raise ValueError("must be a decimal written as a string, without exponent")


def _bounded(limit: Decimal, fraction_digits: int) -> AfterValidator:
    def check(value: Decimal) -> Decimal:
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int):
            raise ValueError("must be finite")
        if abs(value) >= limit:
            raise ValueError(f"must be below {limit:.0E}")
        if -exponent > fraction_digits:
            short = _EXACT.quantize(value, Decimal(1).scaleb(-fraction_digits))
            if short != value:
                raise ValueError(f"must have at most {fraction_digits} digits after the point")
            return short
        return value

    return AfterValidator(check)


def _cut(value: object) -> object:
    """Rounded to the digits that are kept: below any price step, an error that moves nothing."""
    if isinstance(value, str) and len(value) <= _LONG and _DECIMAL.fullmatch(value):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or abs(value) >= LIMIT:
        return value  # For the rules of the field to name.
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return value if -exponent <= FRACTION_DIGITS else _EXACT.quantize(value, _SMALLEST)


def _or_nothing(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """What decides nothing is absent when it cannot be read: no fill may be lost for it."""
    try:
        return read(value)
    except ValueError:
        return None


def _read_time(value: object) -> datetime:
    if isinstance(value, str):
        if not _TIME.fullmatch(value):
            raise ValueError("must be an RFC 3339 time with an offset")
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("must be a time with an offset")
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between 1970 and 9999") from None
    if value.year < 1970:
        raise ValueError("must be a time between 1970 and 9999")
    return value


def is_time(value: object) -> bool:
    """Whether a field of type `Time` takes it."""
    try:
        _read_time(value)
    except ValueError:
        return False
    return True


def _clean(length: int) -> Callable[[object], object]:
    def clean(value: object) -> object:
        if value is None:
            return None
        text = value if isinstance(value, str) else str(value)
        return _CONTROL.sub(" ", text[: 2 * length]).encode(errors="replace").decode()[:length]

    return clean


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as every time on the wire is written."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _decimal_schema(pattern: str, description: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "description": description})


_SIGNED = r"^-?[0-9]+(\.[0-9]{1,18})?$"
_UNSIGNED = r"^[0-9]+(\.[0-9]{1,18})?$"
_as_text = PlainSerializer(lambda value: format(value, "f"), return_type=str)

SignedDecimal = Annotated[
    Decimal,
    BeforeValidator(_read_decimal),
    _bounded(LIMIT, FRACTION_DIGITS),
    _as_text,
    _decimal_schema(_SIGNED, "Decimal, below 1e15 in size."),
]
PositiveDecimal = Annotated[
    Decimal,
    BeforeValidator(_read_decimal),
    _bounded(LIMIT, FRACTION_DIGITS),
    Field(gt=0),
    _as_text,
    _decimal_schema(_UNSIGNED, "Decimal above 0 and below 1e15."),
]
UnsignedDecimal = Annotated[
    Decimal,
    BeforeValidator(_read_decimal),
    _bounded(LIMIT, FRACTION_DIGITS),
    Field(ge=0),
    _as_text,
    _decimal_schema(_UNSIGNED, "Decimal, 0 or more, below 1e15."),
]
Price = Annotated[UnsignedDecimal, BeforeValidator(_cut)]
"""Of an execution: 0 is one (worthless expiry, cabinet trades). More digits than are kept are rounded, not refused."""
Money = Annotated[
    Decimal,
    BeforeValidator(_read_decimal),
    _bounded(MONEY_LIMIT, MONEY_FRACTION_DIGITS),
    _as_text,
    _decimal_schema(r"^-?[0-9]+(\.[0-9]{1,54})?$", "Exact signed amount of money."),
]
Time = Annotated[
    datetime,
    BeforeValidator(_read_time),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}),
]
Id = Annotated[UUID, WithJsonSchema({"type": "string", "format": "uuid"})]
NumericId = Annotated[int, Field(strict=True, ge=1, le=_MAX_ID)]
Counter = Annotated[int, Field(strict=True, ge=1, le=999_999)]
Emission = Annotated[
    int,
    Field(strict=True, ge=1),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 999_999}),
]
"""The schema's bound is the writers' promise. No reader stumbles over how often an event was sent."""
BrokerSeq = Annotated[int, Field(strict=True, ge=0, le=_MAX_ID)]

# Without control characters: PostgreSQL's text cannot hold NUL, and a name with a line break is nobody's.
Name = Annotated[str, Field(min_length=1, max_length=_NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]
Currency = Annotated[str, Field(pattern="^[A-Z]{3,5}$")]
Note = Annotated[str, BeforeValidator(_clean(_NOTE_LENGTH)), Field(max_length=_NOTE_LENGTH)]
"""Free text of somebody else. It is cut and cleaned, never refused: no fill may be lost for its comment."""

# Fields that decide nothing. They are cut, cleaned, or absent; readers of theirs are people and reports.
AsidePrice = Annotated[UnsignedDecimal | None, BeforeValidator(_cut), WrapValidator(_or_nothing)]
AsideNumber = Annotated[SignedDecimal | None, BeforeValidator(_cut), WrapValidator(_or_nothing)]
AsideName = Annotated[Name | None, BeforeValidator(_clean(_NAME_LENGTH)), WrapValidator(_or_nothing)]
AsideCurrency = Annotated[Currency | None, BeforeValidator(_upper), WrapValidator(_or_nothing)]
