"""What is compared, and what a comparison finds: entries of the books, totals of a day, differences by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from closeflow.domain.model import Side
from closeflow.domain.outbox.events import EXECUTION_RECORDED, cash_amount

EXACT: Final = 200
"""Digits that no sum of cash needs."""


Key = tuple[str, str, str]
"""What names an execution for ever: broker, account and execution id."""


class Source(StrEnum):
    """Who says what was executed."""

    EVENTS = "events"
    EXECUTIONS = "executions"
    BROKER = "broker"


class DifferenceKind(StrEnum):
    """What does not agree; docs/reconciling.md says of each what to do."""

    EVENT_MISSING = "event_missing"
    EVENT_DIFFERS = "event_differs"
    EVENT_CONTRADICTS = "event_contradicts"
    EVENT_UNKNOWN = "event_unknown"
    EVENT_UNREADABLE = "event_unreadable"
    ENTERED_TWICE = "entered_twice"
    REVERSED_TWICE = "reversed_twice"
    REVERSED_THOUGH_STANDING = "reversed_though_standing"
    SECOND_ID = "second_id"
    BOOKED_TWICE = "booked_twice"
    NOT_BOOKED = "not_booked"
    NOT_AT_BROKER = "not_at_broker"
    FILL_DIFFERS = "fill_differs"
    LISTED_TWICE = "listed_twice"
    AMOUNT_DIFFERS = "amount_differs"
    CHARGE_DIFFERS = "charge_differs"
    LINE_UNREADABLE = "line_unreadable"
    SUMS_DIFFER = "sums_differ"


@dataclass(frozen=True, slots=True, order=True)
class Day:
    """What is added up: an account's executions of one symbol on one day (UTC), in one currency."""

    account_id: str
    symbol: str
    day: date
    currency: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the books: quantity bought (sold, below 0) and cash received (paid, below 0). `rows` are the rows of
    the ledger that it is about: what is left out of one source is left out of all."""

    of: Day
    quantity: Decimal
    cash: Decimal
    rows: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a day's entries."""

    quantity: Decimal = Decimal(0)
    cash: Decimal = Decimal(0)

    def __add__(self, other: Entry) -> Totals:
        return Totals(self.quantity + other.quantity, self.cash + other.cash)


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One thing that does not agree. `subject` names it, such as `execution 9f3` or `line 7`. `cash` is by how much the
    events exceed what is booked, or what is booked exceeds what the broker lists; None where that says nothing."""

    kind: DifferenceKind
    account_id: str
    symbol: str
    day: date | None
    subject: str
    detail: str
    cash: Decimal | None = None


@dataclass(slots=True)
class Found:
    """What one source says: its entries, what is wrong with them, and how many items it had."""

    entries: list[Entry] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    count: int = 0
    taken_as_told: int = 0
    """Rows of the ledger for which this source cannot have a line, and was given the ledger's."""


@dataclass(frozen=True, slots=True)
class DayTotals:
    """A day by source; a source that was not asked about the account has none."""

    of: Day
    by_source: Mapping[Source, Totals | None]

    @property
    def agrees(self) -> bool:
        """Whether all that were asked say the same."""
        return len({one for one in self.by_source.values() if one is not None}) == 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """`too_new`: executions that not every source can know yet, and orders of whose charges that is so; they are left
    out of everything."""

    at: datetime
    days: Sequence[DayTotals]
    differences: Sequence[Difference]
    counts: Mapping[Source, int]
    taken_as_told: Mapping[Source, int]
    too_new: int
    foreign: int
    not_compared: Sequence[str] = ()

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def cash_of(*, side: Side, quantity: Decimal, price: Decimal, multiplier: Decimal) -> Decimal:
    """What an execution brings (a sell) or costs (a buy, below 0), without commission and fees, exact."""
    return cash_amount(EXECUTION_RECORDED, side=side, quantity=quantity, price=price, multiplier=multiplier)


def day_of(at: datetime) -> date:
    """The day (UTC) that a time counts to."""
    return at.astimezone(UTC).date()


def entry(of: Day, side: Side, quantity: Decimal, cash: Decimal, *, back: bool, rows: tuple[Key, ...]) -> Entry:
    """An execution that enters the books with this cash, or is taken `back`."""
    moved = quantity if side is Side.BUY else -quantity
    return Entry(of, -moved, -cash, rows) if back else Entry(of, moved, cash, rows)
