"""All three sources against each other: the sums of each account, symbol and day, and every difference by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, localcontext

from closectl.reconciling.against_broker import BrokerCompared, booked_twice, compare_broker, covers, twins
from closectl.reconciling.against_events import Books, EventsCompared, Kept, compare_events
from closectl.reconciling.charges import ChargesCompared, compare_charges
from closectl.reconciling.items import (
    EXACT,
    Comparison,
    Day,
    DayTotals,
    Difference,
    DifferenceKind,
    Entry,
    Key,
    Source,
    Totals,
)
from closectl.reconciling.lines import Listing
from closectl.reconciling.told import Told, ToldCharge, Unreadable
from closeflow.domain.model import ExecKind
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.ledger_rows import Ledger, LedgerRow


@dataclass(frozen=True, slots=True)
class ToldEvents:
    """What `read_told` gives, and since when the topic has everything."""

    events: Sequence[Told]
    unreadable: Sequence[Unreadable] = ()
    contradicting: Sequence[tuple[Told, Told]] = ()
    charges: Sequence[ToldCharge] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is wanted of it; None is everything."""

    account: str | None = None
    symbol: str | None = None
    first: date | None = None
    last: date | None = None

    def has(self, account_id: str, symbol: str, day: date | None) -> bool:
        """Whether it is wanted. What cannot be told where it belongs is."""
        if account_id and self.account not in (None, account_id):
            return False
        if symbol and self.symbol not in (None, symbol):
            return False
        return day is None or ((self.first or day) <= day <= (self.last or day))


def compare(
    ledger: Ledger,
    events: ToldEvents | None,
    listing: Listing | None,
    scope: Scope,
    *,
    not_compared: Iterable[str] = (),
) -> Comparison:
    """Broker's list, then the ledger's snapshot, then the events were read, in this order; a source may be left out."""
    books = Books([one for one in ledger.rows if listing is None or listing.between is None or covers(listing, one)])
    with localcontext() as context:
        context.prec = EXACT
        of_events = None if events is None else _events(books, events, listing, ledger.at)
        of_broker = None if listing is None else compare_broker(books, listing, at=ledger.at)
        waiting = _waiting(of_events, of_broker)
        booked = (
            of_events.booked if of_events is not None else [one for row in books.rows for one in books.entries(row)]
        )
        sides: dict[Source, list[Entry] | None] = {
            Source.EVENTS: None if of_events is None else of_events.told.entries,
            Source.EXECUTIONS: booked,
            Source.BROKER: None if of_broker is None else of_broker.listed.entries,
        }
        charges = _charges(ledger, events, listing)
        days = _days(sides, waiting, frozenset() if listing is None else listing.accounts, scope)
    found = [
        *(of_events.told.differences if of_events is not None else ()),
        *(of_broker.listed.differences if of_broker is not None else ()),
        *_twice(books.rows),
        *charges.differences,
    ]
    counts = {Source.EXECUTIONS: len(books.rows)}
    if of_events is not None:
        counts[Source.EVENTS] = of_events.told.count
    if of_broker is not None:
        counts[Source.BROKER] = of_broker.listed.count
    wanted = sorted({one for one in found if scope.has(one.account_id, one.symbol, one.day)}, key=_place)
    return Comparison(
        at=ledger.at,
        days=days,
        differences=[*wanted, *_unexplained(days, wanted)],
        counts=counts,
        taken_as_told={
            Source.EVENTS: of_events.told.taken_as_told if of_events is not None else 0,
            Source.BROKER: of_broker.listed.taken_as_told if of_broker is not None else 0,
        },
        too_new=len(waiting) + len(charges.too_new),
        foreign=listing.foreign if listing is not None else 0,
        not_compared=tuple(not_compared),
    )


def _events(books: Books, told: ToldEvents, listing: Listing | None, at: datetime) -> EventsCompared:
    """A list that covers some days is compared with the events of the rows of these days."""
    events = told.events
    if listing is not None and listing.between is not None:
        names = books.by_key.keys() | books.aliases.keys()
        events = [one for one in events if one.key in names]
    kept = Kept(told.since)
    return compare_events(books, events, told.unreadable, told.contradicting, kept=kept, at=at)


def _charges(ledger: Ledger, told: ToldEvents | None, listing: Listing | None) -> ChargesCompared:
    """Of all days: a charge may come long after its execution, so no days can be cut out."""
    if told is None or (listing is not None and listing.between is not None):
        return ChargesCompared((), ())
    return compare_charges(ledger, told.charges, kept=Kept(told.since))


def _waiting(of_events: EventsCompared | None, of_broker: BrokerCompared | None) -> set[Key]:
    return (of_events.waiting if of_events is not None else set()) | (
        of_broker.waiting if of_broker is not None else set()
    )


def _days(
    sides: Mapping[Source, list[Entry] | None], waiting: set[Key], listed: frozenset[str], scope: Scope
) -> list[DayTotals]:
    sums: dict[Source, defaultdict[Day, Totals]] = {}
    for source, entries in sides.items():
        if entries is not None:
            sums[source] = defaultdict(Totals)
            for one in entries:
                if not waiting.intersection(one.rows) and scope.has(one.of.account_id, one.of.symbol, one.of.day):
                    sums[source][one.of] += one
    every = sorted({day for of_source in sums.values() for day in of_source})
    return [
        DayTotals(
            day,
            {
                source: sums[source].get(day, Totals())
                if source in sums and (source is not Source.BROKER or day.account_id in listed)
                else None
                for source in Source
            },
        )
        for day in every
    ]


def _twice(rows: Sequence[LedgerRow]) -> Iterable[Difference]:
    """Rows that are one execution by what the broker states of the order: more stands than it ever said."""
    standing: defaultdict[str, list[LedgerRow]] = defaultdict(list)
    for row in rows:
        if row.stands and row.kind is ExecKind.TRADE:
            standing[row.client_order_id].append(row)
    for of_order in standing.values():
        if sum((one.quantity or Decimal(0) for one in of_order), Decimal(0)) <= of_order[0].at_most:
            continue
        for number, row in enumerate(of_order):
            twin = next((one for one in of_order[:number] if twins(one, row)), None)
            if twin is not None:
                yield booked_twice(row, twin)


def _unexplained(days: Sequence[DayTotals], named: Sequence[Difference]) -> list[Difference]:
    """Days whose sums differ though nothing of them was named."""
    explained = {(one.account_id, one.symbol) for one in named}
    return [
        Difference(
            DifferenceKind.SUMS_DIFFER,
            one.of.account_id,
            one.of.symbol,
            one.of.day,
            f"{one.of.account_id} {one.of.symbol} {one.of.day}",
            ", ".join(
                f"{source}: {decimal_text(said.quantity)} for {decimal_text(said.cash)}"
                for source, said in one.by_source.items()
                if said is not None
            ),
        )
        for one in days
        if not one.agrees and (one.of.account_id, one.of.symbol) not in explained
    ]


def _place(one: Difference) -> tuple[object, ...]:
    return (one.account_id, one.symbol, one.day or date.min, one.subject, one.kind, one.detail)
