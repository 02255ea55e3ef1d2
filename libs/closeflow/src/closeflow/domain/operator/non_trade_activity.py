"""What the broker did to a holding without a trade, and what follows from it here: positions end, or a person is told.

A position ends only where everything agrees: the activity takes away exactly what we hold of the symbol, the broker
holds nothing of it any more, and nothing of ours is under way that could explain that too (ADR 0023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final, assert_never

from closeflow.domain.batch import BatchResult
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import ZERO, Book, Incident
from closeflow.domain.operator.adjust import Adjustment, Ending, end_position
from closeflow.domain.operator.requests import Done, unclear
from closeflow.domain.position.compare_with_broker import agree
from closeflow.domain.text import decimal_text

_EXECUTED: Final = (None, "executed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCharge:
    """What an activity charges for one execution of one order, by the broker's ids; above 0 the account pays."""

    broker_order_id: str
    exec_id: str
    commission: Decimal
    fees: Decimal
    currency: str | None
    at: datetime | None
    """When the broker booked it, where it says more than the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NonTrade:
    """One activity as the broker lists it. `quantity` is the signed change of the holding; what is not stated, or
    cannot be read, is None (`kind`: empty).

    `kind` is the broker's own word for it, `ending` what that does to a holding where it ends one. With `money_only` it
    changes no quantity, or comes with every fill (the fee of a coin): a comparison tells of it."""

    activity_id: str
    kind: str
    symbol: str | None
    quantity: Decimal | None
    day: date | None
    status: str | None = None
    description: str | None = None
    ending: Ending | None = None
    money_only: bool = False
    charge: ExecutionCharge | None = None

    def __str__(self) -> str:
        said = (self.kind or "an activity without a type", self.symbol, self.quantity and decimal_text(self.quantity))
        told = " ".join(one for one in said if one)
        return f"{told} of {self.day or 'an unknown day'} ({self.activity_id}): {self.description or 'no description'}"


@dataclass(frozen=True, slots=True)
class Passed:
    """Nothing of ours is concerned, or nothing differs (yet): it is looked at again as long as it is listed."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The positions of these books end so, all in one transaction."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Waits:
    """It would end them, but not now."""

    why: str


@dataclass(frozen=True, slots=True)
class Told:
    """A person has to mend it."""

    why: str


Verdict = Passed | Ends | Waits | Told


@dataclass(slots=True, kw_only=True)
class ActivityResult(BatchResult):
    """What follows from one activity; `adjustments` are by position id."""

    verdict: Verdict
    adjustments: dict[int, Adjustment] = field(default_factory=dict)


def apply_activity(
    activity: NonTrade, before: Mapping[int, Book], *, subject: str, at_broker: Decimal | None, by: str, now: datetime
) -> ActivityResult:
    """Decide as `judge` does, and end all the positions or tell a person; `subject` is what an incident is about."""
    verdict = judge(activity, [*before.values()], at_broker=at_broker)
    result = ActivityResult(before=before, now=now, verdict=verdict)
    match verdict:
        case Ends(ending):
            for position_id, book in before.items():
                gone = Adjustment(delta=-book.position.quantity, reason=f"{ending}: {activity}", by=by)
                outcome = end_position(book, ending, gone, last=None, now=now)
                if not isinstance(outcome, Done):
                    raise RuntimeError(f"position {position_id} was to end by {activity}: {outcome}")
                result.put(outcome.book)
                result.events += outcome.events
                result.incidents += outcome.incidents
                result.adjustments[position_id] = gone
        case Told(why):
            result.incidents.append(about(IncidentKind.NON_TRADE_ACTIVITY, f"{activity}: {why}", subject=subject))
        case Waits(why):
            result.incidents.append(waits_incident(activity, why, subject=subject))
        case Passed():
            pass
        case _:
            assert_never(verdict)
    return result


def waits_incident(activity: NonTrade, why: str, *, subject: str) -> Incident:
    """One for an activity that is decided about again; it closes when that is over."""
    return about(IncidentKind.NON_TRADE_ACTIVITY_WAITS, f"{activity}: {why}", subject=subject)


def concerns(activity: NonTrade, opened: Sequence[date]) -> bool:
    """Whether it may have changed what we hold: `opened` are the days on which our open positions in its symbol came
    here. What happened before all of them is in the quantities that they came with."""
    if activity.money_only:
        return False
    if activity.symbol is None:
        return not activity.kind or bool(activity.quantity)
    return bool(opened) and (activity.day is None or activity.day >= min(opened))


def judge(activity: NonTrade, books: Sequence[Book], *, at_broker: Decimal | None) -> Verdict:
    """Decide about an activity that `concerns` us. The books are those of all open positions in its symbol, locked;
    `at_broker` is what the broker holds of it now, None where that cannot be read."""
    if activity.symbol is None:
        return Told("it does not say of what symbol it is; compare what the broker holds")
    if not books:
        return Passed()
    held = sum((book.position.quantity for book in books), ZERO)
    if at_broker is None:
        return Waits("what the broker holds of it cannot be read")
    if agree(held, at_broker):
        return Passed()
    ours = ", ".join(f"position {book.position.id} has {decimal_text(book.position.quantity)}" for book in books)
    differs = f"{ours}, the broker holds {decimal_text(at_broker)}"
    ending = activity.ending
    if ending is None or ending is Ending.REORGANIZED:
        return Told(f"{differs}; {_mend(activity, books)}")
    whole = activity.status in _EXECUTED and activity.quantity == -held and at_broker == ZERO
    if not whole:
        return Told(f"{differs}, so it did not end just what is held here; {_mend(activity, books)}")
    obstacles = list(_obstacles(books))
    return Waits("; ".join(obstacles)) if obstacles else Ends(ending)


def _obstacles(books: Sequence[Book]) -> Iterator[str]:
    for book in books:
        position = book.position
        if position.overfill_of is not None:
            yield f"position {position.id} holds the overfill of position {position.overfill_of}"
        if position.exposure_unproven:
            yield f"the exposure of position {position.id} is unproven"
        for request in book.requests.values():
            if request.unfinished:
                yield f"close {request.id} is {request.status}"
            if request.frozen_reason is not None:
                yield f"close {request.id} is frozen by {request.frozen_reason}"
        yield from unclear(book)


def _mend(activity: NonTrade, books: Sequence[Book]) -> str:
    position_id = books[0].position.id
    if activity.ending is Ending.REORGANIZED:
        verb = f"`closectl positions end {position_id} --as reorganized` and import what it became"
        return f"{verb}, or `closectl positions adjust {position_id}` where only the quantity changed"
    return f"compare the two, then `closectl positions adjust {position_id}` or `closectl positions end {position_id}`"


_QUOTED_IN: Final = ("USDT", "USDC", "USD", "BTC")


def spellings(symbol: str) -> frozenset[str]:
    """How a symbol of an activity may be written here: a broker leaves out the slash of a crypto pair."""
    pairs = (f"{symbol.removesuffix(one)}/{one}" for one in _QUOTED_IN if symbol.endswith(one) and symbol != one)
    return frozenset({symbol, *pairs})
