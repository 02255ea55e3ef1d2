"""The accounting events against the ledger of executions: what each row must be told as, and what is told instead.

A trade enters the books once. A bust takes back what stands of it; a correction does that too and enters in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from closectl.reconciling.items import Day, Difference, DifferenceKind, Entry, Found, Key, cash_of, day_of, entry
from closectl.reconciling.told import Told, Unreadable
from closeflow.domain.model import ExecKind
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.ledger_rows import LedgerRow

PUBLISH_WITHIN: Final = timedelta(seconds=30)
"""How long an event may take to Kafka, and a fill from the broker into the ledger (T_pub)."""
SAME_TIME: Final = timedelta(seconds=1)
"""How far the times may be apart that one execution is given under two names."""


def of_row(row: LedgerRow, day: date | None = None) -> Day:
    """What the row is added up under; on another day where it is taken back then."""
    return Day(row.account_id, row.symbol, day or day_of(row.occurred_at), row.currency)


@dataclass(slots=True)
class Books:
    """The rows, and what the ledger makes of each in the books."""

    rows: Sequence[LedgerRow]
    by_key: Mapping[Key, LedgerRow] = field(init=False)
    aliases: Mapping[Key, LedgerRow] = field(init=False)
    _replaced_by: Mapping[Key, LedgerRow] = field(init=False)

    def __post_init__(self) -> None:
        self.by_key = {one.key: one for one in self.rows}
        self.aliases = {(one.broker, one.account_id, name): one for one in self.rows for name in one.aliases}
        self._replaced_by = {
            (one.broker, one.account_id, one.replaces): one for one in self.rows if one.replaces is not None
        }

    def entering(self, row: LedgerRow) -> list[Entry]:
        """The entry of a trade or a correction."""
        return self._entry(row, of_row(row), back=False, rows=(row.key,))

    def leaving(self, row: LedgerRow, by: str | None) -> list[Entry]:
        """The entry that takes the row back, on the day of the row that did it: the one `by` names, else what replaced
        it, whatever replaced that."""
        key = (row.broker, row.account_id, by or "")
        reason = self.by_key.get(key) or self._replaced_by.get(row.key) or row
        return self._entry(row, of_row(row, day_of(reason.occurred_at)), back=True, rows=(row.key, reason.key))

    def entries(self, row: LedgerRow) -> list[Entry]:
        """What a trade or correction comes to where nobody says which of those that do not stand were told."""
        if row.kind is ExecKind.BUST or not (row.kind is ExecKind.TRADE or row.stands):
            return []
        return self.entering(row) + ([] if row.stands else self.leaving(row, None))

    @staticmethod
    def _entry(row: LedgerRow, of: Day, *, back: bool, rows: tuple[Key, ...]) -> list[Entry]:
        if row.quantity is None or row.price is None:
            return []
        cash = cash_of(side=row.side, quantity=row.quantity, price=row.price, multiplier=row.multiplier)
        return [entry(of, row.side, row.quantity, cash, back=back, rows=rows)]


@dataclass(frozen=True, slots=True)
class Kept:
    """Since when the topic has every event: what was told before may have been removed by its retention."""

    since: datetime | None

    def lacks(self, row: LedgerRow) -> bool:
        """Whether events of the row, or of one that it replaces, may be gone."""
        return self.since is not None and row.since < self.since


@dataclass(slots=True)
class EventsCompared:
    """What the ledger makes, what the events say, and whose events may still be on their way."""

    booked: list[Entry] = field(default_factory=list)
    told: Found = field(default_factory=Found)
    waiting: set[Key] = field(default_factory=set)


def compare_events(
    books: Books,
    events: Sequence[Told],
    unreadable: Sequence[Unreadable],
    contradicting: Sequence[tuple[Told, Told]],
    *,
    kept: Kept,
    at: datetime,
) -> EventsCompared:
    """Everything that is told against everything that is booked. The events were read after the rows, which are as of
    `at`: an event of a row that is not there then is left out where it is newer."""
    found = EventsCompared()
    found.told.count = len(events)
    entered: defaultdict[Key, list[Told]] = defaultdict(list)
    taken: defaultdict[Key, list[Told]] = defaultdict(list)
    for one in events:
        (taken if one.back else entered)[one.key].append(one)
    for row in books.rows:
        if row.kind is not ExecKind.BUST:
            _compare_row(books, row, entered.pop(row.key, []), taken.pop(row.key, []), found, kept=kept, at=at)
    for of_none in (*entered.values(), *taken.values()):
        for one in of_none:
            if one.occurred_at < at - PUBLISH_WITHIN or _known_otherwise(books, one) is not None:
                found.told.entries.append(_as_told(one, ()))
                found.told.differences.append(_unknown(books, one))
            else:
                found.waiting.add(one.key)
    found.told.differences += [_contradicts(*pair) for pair in contradicting]
    found.told.differences += [
        Difference(DifferenceKind.EVENT_UNREADABLE, "", "", None, one.place, f"cannot be booked: {one.why}")
        for one in unreadable
    ]
    return found


def _compare_row(
    books: Books,
    row: LedgerRow,
    ins: list[Told],
    outs: list[Told],
    found: EventsCompared,
    *,
    kept: Kept,
    at: datetime,
) -> None:
    """`ins` enter the row, `outs` take it back."""
    must_enter = row.kind is ExecKind.TRADE or row.stands or bool(ins)
    coming = books.entering(row) if must_enter else []
    going = books.leaving(row, outs[0].by if outs else None) if must_enter and not row.stands else []
    missing = [
        what
        for entries, told, what in ((coming, ins, "it enters"), (going, outs, "it is taken back"))
        if entries and not told
    ]
    if missing and row.until >= at - PUBLISH_WITHIN:
        found.waiting.add(row.key)
        return
    found.booked += coming + going
    found.told.entries += [_as_told(one, (row.key, (row.broker, row.account_id, one.by))) for one in (*ins, *outs)]
    if missing and kept.lacks(row):
        found.told.entries += (coming if not ins else []) + (going if not outs else [])
        found.told.taken_as_told += 1
        missing = []
    found.told.differences += _of_row(row, ins, outs, coming, going, missing)


def _of_row(
    row: LedgerRow, ins: list[Told], outs: list[Told], coming: list[Entry], going: list[Entry], missing: list[str]
) -> Iterator[Difference]:
    for entries, told, what in ((coming, ins, "it enters"), (going, outs, "it is taken back")):
        if what in missing:
            cash = sum((one.cash for one in entries), Decimal(0))
            yield _about(
                row,
                DifferenceKind.EVENT_MISSING,
                f"of order {row.client_order_id} has no event by which {what}: {decimal_text(cash)} {row.currency} is "
                "not in execution-events",
                cash=-cash,
                day=entries[0].of.day,
            )
        for one in told:
            yield from _content(row, one, entries)
    if len(ins) > 1:
        yield _repeated(row, DifferenceKind.ENTERED_TWICE, "is entered", ins)
    if len(outs) > 1:
        yield _repeated(row, DifferenceKind.REVERSED_TWICE, "is taken back", outs)
    if outs and row.stands:
        yield _about(
            row,
            DifferenceKind.REVERSED_THOUGH_STANDING,
            f"stands, and event {outs[0].event_id} takes it back",
            cash=outs[0].cash,
            day=day_of(outs[0].occurred_at),
        )


def _content(row: LedgerRow, one: Told, entries: Sequence[Entry]) -> Iterator[Difference]:
    """What an event says differently than the row is booked. The cash of a row that stands and is taken back is wrong
    as a whole, and told as that."""
    wanted = entries[0] if entries else None
    compared: list[tuple[str, object, object]] = [
        ("position", one.position_id, str(row.position_id)),
        ("symbol", one.symbol, row.symbol),
        ("side", str(one.side), str(row.side)),
        ("quantity", one.quantity, row.quantity),
        ("price", one.price, row.price),
        ("multiplier", one.multiplier, row.multiplier),
        ("currency", one.currency, row.currency),
    ]
    if wanted is not None:
        compared += [("cash_amount", one.cash, wanted.cash), ("day", day_of(one.occurred_at), wanted.of.day)]
    wrong = [f"{name} {_text(told)} instead of {_text(booked)}" for name, told, booked in compared if told != booked]
    if wrong:
        difference = one.cash - wanted.cash if wanted is not None else None
        by = "" if not difference else f", {decimal_text(difference)} {one.currency} off"
        yield _about(
            row,
            DifferenceKind.EVENT_DIFFERS,
            f"event {one.event_id} says {', '.join(wrong)}{by}",
            cash=difference,
            day=day_of(one.occurred_at),
        )


def _repeated(row: LedgerRow, kind: DifferenceKind, what: str, told: Sequence[Told]) -> Difference:
    cash = sum((one.cash for one in told[1:]), Decimal(0))
    names = ", ".join(str(one.event_id) for one in told)
    return _about(row, kind, f"{what} by {len(told)} events: {names}", cash=cash, day=day_of(told[-1].occurred_at))


def _unknown(books: Books, one: Told) -> Difference:
    what = "takes back" if one.back else "enters"
    known = _known_otherwise(books, one)
    kind, detail = DifferenceKind.EVENT_UNKNOWN, f"event {one.event_id} {what} it, and it is not booked"
    if known is not None and not one.back:
        kind = DifferenceKind.SECOND_ID
        detail = f"event {one.event_id} enters it: that is execution {known.exec_id} under a second id"
    day = day_of(one.occurred_at)
    return Difference(kind, one.key[1], one.symbol, day, f"execution {one.key[2]}", detail, one.cash)


def _known_otherwise(books: Books, one: Told) -> LedgerRow | None:
    """The row that is what an event enters under an id that is not booked."""
    return books.aliases.get(one.key) or next((row for row in books.rows if _alike(row, one)), None)


def _alike(row: LedgerRow, one: Told) -> bool:
    figures = (row.client_order_id, row.side, row.quantity, row.price)
    told = (one.client_order_id, one.side, one.quantity, one.price)
    return row.kind is not ExecKind.BUST and figures == told and abs(row.occurred_at - one.occurred_at) <= SAME_TIME


def _contradicts(first: Told, later: Told) -> Difference:
    names = sorted(
        name
        for name in first.content.keys() | later.content.keys()
        if first.content.get(name) != later.content.get(name)
    )
    told = ", ".join(f"{name} {first.content.get(name)!s} and {later.content.get(name)!s}" for name in names)
    return Difference(
        DifferenceKind.EVENT_CONTRADICTS,
        first.key[1],
        first.symbol,
        day_of(first.occurred_at),
        f"event {first.event_id}",
        f"about execution {first.key[2]} says two things: {told}; who has booked which depends on what came first",
        later.cash - first.cash,
    )


def _as_told(one: Told, rows: tuple[Key, ...]) -> Entry:
    of = Day(one.key[1], one.symbol, day_of(one.occurred_at), one.currency)
    return entry(of, one.side, one.quantity, -one.cash if one.back else one.cash, back=one.back, rows=rows)


def _about(
    row: LedgerRow, kind: DifferenceKind, detail: str, *, cash: Decimal | None = None, day: date | None = None
) -> Difference:
    at = day or day_of(row.occurred_at)
    return Difference(kind, row.account_id, row.symbol, at, f"execution {row.exec_id}", detail, cash)


def _text(value: object) -> str:
    return decimal_text(value) if isinstance(value, Decimal) else str(value)
