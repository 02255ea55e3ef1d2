"""What operators send and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema, model_validator

from close_api.close_body import MAX_REASON, bounded, field_errors, moment, positive, words
from close_api.errors import field_problem
from close_api.rest.responses import Number
from close_api.use_cases.operating import Row
from closeflow.domain.incidents import runbook
from closeflow.domain.operator.adjust import Ending
from closeflow.domain.text import decimal_text, time_text
from closeflow.domain.trading_controls import TradingState
from closeflow.storage.incidents import IncidentRow

B = TypeVar("B", bound=BaseModel)

_LARGEST: Final = 10**15
_MOST_SUBMITS: Final = 1_000_000
_LONGEST_NAME: Final = 128


def _price(value: object) -> Decimal:
    found = bounded(value)
    if found < 0:
        raise ValueError("must not be below 0; 0 is one (worthless expiry)")
    return found


def _submits(value: object) -> int:
    found = bounded(value)
    if found != found.to_integral_value() or not 1 <= found <= _MOST_SUBMITS:
        raise ValueError(f"must be a whole number from 1 to {_MOST_SUBMITS}")
    return int(found)


def _name(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_NAME or not value.isprintable():
        raise ValueError(f"must be 1 to {_LONGEST_NAME} printable characters")
    return value


def _one_of(kind: type[StrEnum]) -> Callable[[object], Any]:
    def check(value: object) -> Any:
        if value not in list(kind):
            raise ValueError(f"must be one of {', '.join(kind)}")
        return kind(str(value))

    return check


def _number(**bounds: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "exclusiveMaximum": _LARGEST, **bounds})


def _choice(kind: type[StrEnum]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": [one.value for one in kind]})


Reason = Annotated[
    str, PlainValidator(words), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_REASON})
]
Name = Annotated[
    str, PlainValidator(_name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_NAME})
]
Positive = Annotated[Decimal, PlainValidator(positive), _number(exclusiveMinimum=0)]
OptionalPositive = Annotated[Decimal | None, PlainValidator(positive), _number(exclusiveMinimum=0)]
Price = Annotated[Decimal, PlainValidator(_price), _number(minimum=0)]
Signed = Annotated[Decimal, PlainValidator(bounded), _number(exclusiveMinimum=-_LARGEST)]
OptionalSigned = Annotated[Decimal | None, PlainValidator(bounded), _number(exclusiveMinimum=-_LARGEST)]
Submits = Annotated[
    int | None,
    PlainValidator(_submits),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_SUBMITS}),
]
Moment = Annotated[datetime | None, PlainValidator(moment), WithJsonSchema({"type": "string", "format": "date-time"})]
State = Annotated[TradingState, PlainValidator(_one_of(TradingState)), _choice(TradingState)]
End = Annotated[Ending, PlainValidator(_one_of(Ending)), _choice(Ending)]


class ReasonBody(BaseModel):
    """Why it is done, for whoever reads it in a year. It is kept with what was done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: Reason


class TradingBody(ReasonBody):
    """What may be sent from now on: everything, what makes a position smaller, or nothing."""

    state: State


class LimitsBody(ReasonBody):
    """The limits that change; what is left out stays."""

    max_order_qty: OptionalPositive = None
    max_order_notional: OptionalPositive = Field(None, description="Price × quantity × multiplier.")
    submits_per_minute: Submits = None

    @model_validator(mode="after")
    def _need_one(self) -> Self:
        if self.max_order_qty is None and self.max_order_notional is None and self.submits_per_minute is None:
            raise ValueError("max_order_qty: give it, max_order_notional or submits_per_minute")
        return self


class AdjustBody(ReasonBody):
    """What happened to a position outside: a transfer, an assignment, a split."""

    delta: Signed = Field(description="What it changes by, signed as the position's quantity.")
    expected_quantity: OptionalSigned = Field(
        None, description="The position's quantity now. Without it nothing is done, and what would be is told."
    )
    dry_run: bool = Field(False, strict=True, description="Tell what would be done, and do nothing.")


class EndBody(ReasonBody):
    """Why a position is over that no close ended."""

    ending: End
    expected_quantity: Signed = Field(description="The position's quantity now; all of it ends.")
    dry_run: bool = Field(False, strict=True, description="Tell what would be done, and do nothing.")


class ExecutionBody(ReasonBody):
    """An execution as the broker confirms it."""

    exec_id: Name = Field(description="The broker's own id of it, so that it is booked once.")
    quantity: Positive
    price: Price
    cum_qty: OptionalPositive = Field(None, description="What the order had filled with it, if the broker says.")
    occurred_at: Moment = Field(None, description="When it was executed; now, if it is not known.")
    dry_run: bool = Field(False, strict=True, description="Tell what would be done, and do nothing.")


class PerformedAnswer(BaseModel):
    """What came of it."""

    outcome: Literal["done", "already", "shown"] = Field(
        description="`already`: it was so and nothing was written; `shown`: it was a dry run."
    )
    what: str


class Control(BaseModel):
    """One scope of the kill switch."""

    scope: str = Field(description="`global` or an account.")
    state: TradingState
    reason: str
    by: str
    at: datetime


class ControlsAnswer(BaseModel):
    """The kill switch: an account that is not listed has the global state, of both the stricter counts."""

    controls: list[Control]


class Limits(BaseModel):
    """How much an account may send, and how many orders it has sent since its window of a minute began."""

    account_id: str
    max_order_qty: Number
    max_order_notional: Number
    submits_per_minute: int
    window_started_at: datetime | None
    window_count: int


class LimitsAnswer(BaseModel):
    """The limits of each account."""

    limits: list[Limits]


class IncidentAnswer(BaseModel):
    """What needs a person, or needed one."""

    id: int
    kind: str
    severity: str
    subject: str
    detail: str
    evidence: dict[str, Any] | None = Field(
        description="Of an order that the broker does not find: what it lists and holds, as of `assembled_at`."
    )
    runbook: str = Field(description="The page of this repository that says what to do.")
    account_id: str | None
    close_request_id: UUID | None
    opened_at: datetime
    last_seen_at: datetime
    count: int
    closed_at: datetime | None
    closed_by: str | None
    resolution: str | None


class IncidentsPage(BaseModel):
    """Incidents, the newest first."""

    incidents: list[IncidentAnswer]
    next_page_token: str = Field(description="For the next page; empty at the end.")


class Sender(BaseModel):
    """One life of one process that sends orders; `unanswered` are its sends without an answer."""

    instance_id: str
    host: str
    pid: int
    started_at: datetime
    last_seen_at: datetime
    silent_for_s: int
    exited_at: datetime | None
    unanswered: int


class SendersAnswer(BaseModel):
    """The processes that send orders, those last seen first."""

    senders: list[Sender]


class Action(BaseModel):
    """One thing that an operator, or a caller who cancelled, did."""

    id: int
    at: datetime
    by: str
    action: str
    subject: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    account_id: str | None
    trace_id: str | None


class ActionsPage(BaseModel):
    """What was done by hand, the newest first."""

    actions: list[Action]
    next_page_token: str = Field(description="For the next page; empty at the end.")


BODIES: Final = (ReasonBody, TradingBody, LimitsBody, AdjustBody, EndBody, ExecutionBody)


def read_as(model: type[B], values: Mapping[str, object]) -> B:
    """The body of a call; numbers come as Decimal. Raises Problem `invalid_fields`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise field_problem(*field_errors(error)) from None


def incident_members(one: IncidentRow) -> dict[str, object]:
    """The members of an IncidentAnswer."""
    return shown(asdict(one) | {"runbook": runbook(one.kind)})


def sender_members(row: Row) -> dict[str, object]:
    """The members of a Sender."""
    silent = {"silent_for_s": int(row["silent_for"].total_seconds())}
    return shown({name: value for name, value in row.items() if name != "silent_for"} | silent)


def shown(row: Row) -> dict[str, object]:
    """A row as JSON has it: times as text, numbers with their own digits, also inside documents."""
    return {name: _value(value) for name, value in row.items()}


def _value(value: object) -> object:
    match value:
        case Decimal():
            return orjson.Fragment(decimal_text(value))
        case datetime():
            return time_text(value)
        case dict():
            return shown(value)
        case list():
            return [_value(one) for one in value]
        case _:
            return value
