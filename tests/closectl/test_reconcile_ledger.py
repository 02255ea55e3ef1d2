"""Three sources that agree, and each thing that is planted in one of them is named with what it is off by."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from sqlalchemy import text

from closectl.reconciling.compare import Scope, ToldEvents, compare
from closectl.reconciling.items import Comparison, DifferenceKind, Source, Totals
from closectl.reconciling.lines import Line, Listing
from closectl.reconciling.told import read_told
from closeflow.domain.model import ExecKind
from closeflow.kafka.read_to_end import TailRecord
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.ledger_rows import Ledger, LedgerRow, load_ledger
from closeflow.storage.verify.snapshot import snapshot
from tests.closectl.seeding import ACCOUNT, order_id

FIRST: Final = "fill-1-1-4"
SECOND: Final = "fill-1-1-10"
BUST: Final = "bust-1"
Value = dict[str, Any]
EVERYTHING: Final = Scope()


@dataclass(frozen=True, slots=True)
class Sources:
    """What is compared: the ledger, the values of the events in the order of their topic, the broker's lines."""

    ledger: Ledger
    events: tuple[Value, ...]
    lines: tuple[Line, ...]

    def compared(self, scope: Scope = EVERYTHING) -> Comparison:
        records = [
            TailRecord("execution-events", 0, offset, b"1", json.dumps(value).encode(), ())
            for offset, value in enumerate(self.events)
        ]
        listing = Listing(self.lines, frozenset({ACCOUNT}))
        return compare(self.ledger, ToldEvents(*read_told(records)), listing, scope)

    def row(self, exec_id: str) -> LedgerRow:
        return next(one for one in self.ledger.rows if one.exec_id == exec_id)

    def with_rows(self, *rows: LedgerRow, without: Sequence[str] = ()) -> Sources:
        """The ledger with these rows, in the place of those of their ids or behind all."""
        ids = {one.exec_id for one in rows} | set(without)
        kept = [one for one in self.ledger.rows if one.exec_id not in ids]
        return replace(self, ledger=replace(self.ledger, rows=(*kept, *rows)))

    def event(self, **wanted: object) -> Value:
        return next(one for one in self.events if wanted.items() <= one.items())


async def agreeing(closes: Database) -> Sources:
    """The seeded closes, looked at a minute later; a broker that names each fill otherwise than its stream did."""
    async with snapshot(closes) as tx:
        ledger = await load_ledger(tx)
        rows = await tx.execute(
            text("SELECT payload FROM outbox_events WHERE topic = 'execution-events' ORDER BY xact_id, id")
        )
        events = tuple(row.payload for row in rows)
    ledger = replace(ledger, at=ledger.at + timedelta(minutes=1))
    return Sources(ledger, events, tuple(listed(one) for one in ledger.rows))


def listed(row: LedgerRow) -> Line:
    assert row.quantity is not None
    assert row.price is not None
    return Line(
        name=f"activity a-{row.exec_id}",
        account_id=row.account_id,
        symbol=row.symbol,
        multiplier=row.multiplier,
        currency=row.currency,
        exec_id=f"20260302143000000::other-{row.exec_id}",
        client_order_id=row.client_order_id,
        kind=row.kind,
        ref=None,
        side=row.side,
        quantity=row.quantity,
        price=row.price,
        cum_quantity=row.cum_quantity,
        at=row.occurred_at,
    )


def busted(all_: Sources) -> Sources:
    """With the first fill taken back: in the ledger, by an event, and in the broker's list."""
    trade = replace(all_.row(FIRST), stands=False)
    bust = replace(trade, exec_id=BUST, kind=ExecKind.BUST, replaces=FIRST, quantity=None, price=None)
    told = all_.event(exec_id=FIRST)
    back = {
        **told,
        "event_id": str(uuid.uuid4()),
        "event_type": "EXECUTION_REVERSED",
        "exec_id": BUST,
        "reverses_exec_id": FIRST,
        "cash_amount": "-401",
    }
    line = next(one for one in all_.lines if FIRST in one.name)
    listed_bust = replace(line, name="activity b", exec_id=BUST, kind=ExecKind.BUST, ref=line.exec_id)
    found = all_.with_rows(trade, bust)
    return replace(found, events=(*all_.events, back), lines=(*all_.lines, listed_bust))


def off_by_a_cent(all_: Sources) -> Sources:
    told = all_.event(exec_id=FIRST)
    wrong = {**told, "cash_amount": str(Decimal(told["cash_amount"]) + Decimal("0.01"))}
    return replace(all_, events=tuple(wrong if one is told else one for one in all_.events))


def event_missing(all_: Sources) -> Sources:
    return replace(all_, events=tuple(one for one in all_.events if one["exec_id"] != FIRST))


def reversed_twice(all_: Sources) -> Sources:
    found = busted(all_)
    return replace(found, events=(*found.events, {**found.events[-1], "event_id": str(uuid.uuid4())}))


def reversal_missing(all_: Sources) -> Sources:
    found = busted(all_)
    return replace(found, events=found.events[:-1])


def entered_twice(all_: Sources) -> Sources:
    return replace(all_, events=(*all_.events, {**all_.event(exec_id=FIRST), "event_id": str(uuid.uuid4())}))


def event_under_a_second_id(all_: Sources) -> Sources:
    again = {**all_.event(exec_id=FIRST), "event_id": str(uuid.uuid4()), "exec_id": "second"}
    return replace(all_, events=(*all_.events, again))


def event_under_an_alias(all_: Sources) -> Sources:
    found = event_under_a_second_id(all_)
    later = {**found.events[-1], "occurred_at": "2020-01-01T00:00:00Z"}
    return replace(found, events=(*found.events[:-1], later)).with_rows(replace(all_.row(FIRST), aliases=("second",)))


def booked_under_two_ids(all_: Sources) -> Sources:
    return event_under_a_second_id(all_).with_rows(replace(all_.row(FIRST), exec_id="second"))


def event_of_nothing(all_: Sources) -> Sources:
    strange = {
        **all_.event(exec_id=FIRST),
        "event_id": str(uuid.uuid4()),
        "exec_id": "strange",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    return replace(all_, events=(*all_.events, strange))


def standing_and_reversed(all_: Sources) -> Sources:
    found = busted(all_)
    return found.with_rows(all_.row(FIRST), without=[BUST])


def said_twice_differently(all_: Sources) -> Sources:
    return replace(all_, events=(*all_.events, {**all_.event(exec_id=FIRST), "price": "100.26"}))


def unreadable(all_: Sources) -> Sources:
    return replace(all_, events=(*all_.events, {**all_.event(exec_id=FIRST), "price": "much"}))


def not_listed(all_: Sources) -> Sources:
    return replace(all_, lines=tuple(one for one in all_.lines if FIRST not in one.name))


def not_booked(all_: Sources) -> Sources:
    without_event = event_missing(all_)
    return without_event.with_rows(without=[FIRST])


def listed_at_another_price(all_: Sources) -> Sources:
    lines = [replace(one, price=Decimal("100.24")) if FIRST in one.name else one for one in all_.lines]
    return replace(all_, lines=tuple(lines))


def listed_twice(all_: Sources) -> Sources:
    line = next(one for one in all_.lines if FIRST in one.name)
    return replace(all_, lines=(*all_.lines, replace(line, name="activity again", exec_id="again")))


def amount_off(all_: Sources) -> Sources:
    lines = [replace(one, amount=Decimal("401.01")) if FIRST in one.name else one for one in all_.lines]
    return replace(all_, lines=tuple(lines))


Plant = Callable[[Sources], Sources]
PLANTS: Final[dict[str, tuple[Plant, DifferenceKind, str, str | None]]] = {
    "one cent off in one event": (off_by_a_cent, DifferenceKind.EVENT_DIFFERS, f"execution {FIRST}", "0.01"),
    "one event missing": (event_missing, DifferenceKind.EVENT_MISSING, f"execution {FIRST}", "-401"),
    "one reversal twice": (reversed_twice, DifferenceKind.REVERSED_TWICE, f"execution {FIRST}", "-401"),
    "one execution under two ids": (booked_under_two_ids, DifferenceKind.BOOKED_TWICE, "execution second", "401"),
    "one event under a second id": (event_under_a_second_id, DifferenceKind.SECOND_ID, "execution second", "401"),
    "one event under an alias": (event_under_an_alias, DifferenceKind.SECOND_ID, "execution second", "401"),
    "one reversal missing": (reversal_missing, DifferenceKind.EVENT_MISSING, f"execution {FIRST}", "401"),
    "entered twice": (entered_twice, DifferenceKind.ENTERED_TWICE, f"execution {FIRST}", "401"),
    "reversed though standing": (
        standing_and_reversed,
        DifferenceKind.REVERSED_THOUGH_STANDING,
        f"execution {FIRST}",
        "-401",
    ),
    "event of nothing": (event_of_nothing, DifferenceKind.EVENT_UNKNOWN, "execution strange", "401"),
    "event that says two things": (said_twice_differently, DifferenceKind.EVENT_CONTRADICTS, "event ", "0"),
    "event that cannot be read": (unreadable, DifferenceKind.EVENT_UNREADABLE, "record execution-events/0/5", None),
    "not at the broker": (not_listed, DifferenceKind.NOT_AT_BROKER, f"execution {FIRST}", "401"),
    "not booked": (not_booked, DifferenceKind.NOT_BOOKED, f"activity a-{FIRST}", "-401"),
    "another price at the broker": (
        listed_at_another_price,
        DifferenceKind.FILL_DIFFERS,
        f"execution {FIRST}",
        "0.04",
    ),
    "another amount at the broker": (amount_off, DifferenceKind.AMOUNT_DIFFERS, f"execution {FIRST}", "-0.01"),
    "listed twice by the broker": (listed_twice, DifferenceKind.LISTED_TWICE, "activity again", "-401"),
}
"""What is planted, and the kind, subject and cash by which it is named."""


@pytest.mark.parametrize("made", [lambda all_: all_, busted], ids=["closes", "a bust"])
async def test_sources_that_agree_have_no_difference(closes: Database, made: Plant) -> None:
    found = made(await agreeing(closes)).compared()
    assert found.differences == []
    assert [one.agrees for one in found.days] == [True] * 3
    assert found.counts[Source.EVENTS] >= 5
    assert found.too_new == 0


async def test_the_sums_are_those_of_the_executions(closes: Database) -> None:
    found = (await agreeing(closes)).compared(Scope(symbol="AAPL"))
    (day,) = found.days
    assert (day.of.account_id, day.of.symbol, day.of.currency) == (ACCOUNT, "AAPL", "USD")
    assert [(said.quantity, said.cash) for said in day.by_source.values() if said is not None] == [
        (Decimal(-10), Decimal("1002.5"))
    ] * 3


@pytest.mark.parametrize("name", PLANTS)
async def test_what_is_planted_is_named(closes: Database, name: str) -> None:
    plant, kind, subject, cash = PLANTS[name]
    found = plant(await agreeing(closes)).compared()
    named = [(one.kind, one.cash) for one in found.differences if one.subject.startswith(subject)]
    assert (kind, None if cash is None else Decimal(cash)) in named, found.differences
    about_others = [one for one in found.differences if one.symbol not in ("", "AAPL")]
    assert about_others == []


@pytest.mark.parametrize("name", PLANTS)
async def test_what_is_planted_shows_in_the_sums_of_its_day_alone(closes: Database, name: str) -> None:
    if PLANTS[name][1] in (DifferenceKind.EVENT_CONTRADICTS, DifferenceKind.EVENT_UNREADABLE):
        expected = []  # The record does not count: the first of the id is the one that is booked.
    else:
        expected = ["AAPL"]
    found = PLANTS[name][0](await agreeing(closes)).compared()
    assert sorted({one.of.symbol for one in found.days if not one.agrees}) == expected


async def test_a_copy_of_every_event_makes_no_difference(closes: Database) -> None:
    all_ = await agreeing(closes)
    again = tuple({**one, "emission": 2} for one in all_.events)
    assert replace(all_, events=(*all_.events, *again)).compared().differences == []


@pytest.mark.parametrize("plant", [event_missing, not_listed], ids=["event", "activity"])
async def test_what_is_too_new_is_left_out_of_every_sum(closes: Database, plant: Plant) -> None:
    all_ = await agreeing(closes)
    found = plant(all_.with_rows(replace(all_.row(FIRST), until=all_.ledger.at))).compared()
    assert (found.differences, found.too_new) == ([], 1)
    assert all(one.agrees for one in found.days)
    day = next(one for one in found.days if one.of.symbol == "AAPL")
    assert day.by_source == dict.fromkeys(Source, Totals(Decimal(-6), Decimal("601.5")))


async def test_a_list_without_busts_is_taken_as_booked(closes: Database) -> None:
    found = busted(await agreeing(closes))
    compared = replace(found, lines=found.lines[:-1]).compared()
    assert compared.differences == []
    assert compared.taken_as_told[Source.BROKER] == 1
    assert all(one.agrees for one in compared.days)


async def test_a_bust_of_a_trade_before_the_list_begins_is_taken_back_by_the_ledger(closes: Database) -> None:
    found = busted(await agreeing(closes))
    since = replace(found, lines=tuple(one for one in found.lines if FIRST not in one.name)).with_rows(
        replace(found.row(FIRST), occurred_at=found.row(FIRST).occurred_at - timedelta(days=1))
    )
    first = found.row(BUST).occurred_at.date()
    compared = since.compared(Scope(symbol="AAPL", first=first))
    (day,) = compared.days
    assert day.by_source[Source.BROKER] == day.by_source[Source.EXECUTIONS] == Totals(Decimal(-2), Decimal("200.5"))


async def test_events_that_retention_removed_are_no_difference(closes: Database) -> None:
    all_ = event_missing(await agreeing(closes))
    listing = Listing(all_.lines, frozenset({ACCOUNT}))
    records = [TailRecord("execution-events", 0, 7, b"1", json.dumps(one).encode(), ()) for one in all_.events]
    events = replace(ToldEvents(*read_told(records)), since=all_.ledger.at)
    found = compare(all_.ledger, events, listing, EVERYTHING)
    assert found.differences == []
    assert found.taken_as_told[Source.EVENTS] == 1


async def test_an_account_that_the_broker_was_not_asked_about_has_no_sums_of_it(closes: Database) -> None:
    all_ = await agreeing(closes)
    found = compare(all_.ledger, None, Listing((), frozenset({"other"})), EVERYTHING)
    assert {one.by_source[Source.BROKER] for one in found.days} == {None}
    assert {one.by_source[Source.EVENTS] for one in found.days} == {None}
    assert found.agrees


async def test_only_what_is_asked_for_is_told(closes: Database) -> None:
    wrong = off_by_a_cent(await agreeing(closes))
    day = wrong.row(FIRST).occurred_at.date()
    assert wrong.compared(Scope(symbol="MSFT")).agrees
    assert wrong.compared(Scope(last=day - timedelta(days=1))).days == []
    assert not wrong.compared(Scope(account=ACCOUNT, symbol="AAPL", first=day, last=day)).agrees


async def test_an_order_filled_twice_alike_is_no_execution_under_two_ids(closes: Database) -> None:
    all_ = await agreeing(closes)
    row = all_.row("fill-3-1-2")
    second = replace(row, exec_id="e-2", cum_quantity=Decimal(4), occurred_at=row.occurred_at)
    found = compare(all_.with_rows(second).ledger, None, Listing((), frozenset()), EVERYTHING)
    assert [one for one in found.differences if one.kind is DifferenceKind.BOOKED_TWICE] == []
    assert row.client_order_id == order_id(3)
