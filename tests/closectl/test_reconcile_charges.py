"""Commission and fees that the events and the ledger agree on, and each thing that is planted in them, named."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Final

import pytest

from closectl.reconciling.compare import ToldEvents, compare
from closectl.reconciling.items import DifferenceKind
from closectl.reconciling.told import read_told
from closeflow.kafka.read_to_end import TailRecord
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.ledger_rows import OrderCharges
from tests.closectl.test_reconcile_ledger import EVERYTHING, FIRST, Sources, Value, agreeing


def charged(all_: Sources) -> Sources:
    """With a commission that the first fill states, and a fee that came later."""
    told, row = all_.event(exec_id=FIRST), all_.row(FIRST)
    found = changed(all_, told, commission="1.25", fees="0", net_amount="399.75")
    fee = {
        **told,
        "event_id": str(uuid.uuid4()),
        "event_type": "EXECUTION_CHARGED",
        "charge_id": "fee-1",
        "cash_amount": "0",
        "commission": "0",
        "fees": "0.07",
        "net_amount": "-0.07",
    }
    booked = OrderCharges(
        client_order_id=row.client_order_id, commission=Decimal("1.25"), fees=Decimal("0.07"), until=row.until
    )
    return replace(found, ledger=replace(all_.ledger, charges=(booked,)), events=(*found.events, fee))


def changed(all_: Sources, which: Value, **values: str) -> Sources:
    return replace(all_, events=tuple({**one, **values} if one is which else one for one in all_.events))


def commission_off_by_a_cent(all_: Sources) -> Sources:
    found = charged(all_)
    return changed(found, found.event(exec_id=FIRST, commission="1.25"), commission="1.26")


def fee_not_told(all_: Sources) -> Sources:
    found = charged(all_)
    return replace(found, events=found.events[:-1])


def fee_told_by_two_events(all_: Sources) -> Sources:
    found = charged(all_)
    return replace(found, events=(*found.events, {**found.events[-1], "event_id": str(uuid.uuid4())}))


def fee_told_again_as_another(all_: Sources) -> Sources:
    found = charged(all_)
    return replace(found, events=(*found.events, {**found.events[-1], "fees": "0.08"}))


def fee_of_no_order(all_: Sources) -> Sources:
    found = charged(all_)
    strange = {**found.events[-1], "event_id": str(uuid.uuid4()), "client_order_id": "cf-0-1"}
    return replace(found, events=(*found.events, {**strange, "occurred_at": "2026-01-01T00:00:00Z"}))


def charges_not_booked(all_: Sources) -> Sources:
    found = charged(all_)
    return replace(found, ledger=replace(found.ledger, charges=()))


Plant = Callable[[Sources], Sources]
PLANTS: Final[dict[str, tuple[Plant, DifferenceKind, str, str]]] = {
    "a commission that is a cent off": (commission_off_by_a_cent, DifferenceKind.CHARGE_DIFFERS, "order ", "-0.01"),
    "a fee that is not told": (fee_not_told, DifferenceKind.CHARGE_DIFFERS, "order ", "0.07"),
    "a fee told by two events": (fee_told_by_two_events, DifferenceKind.CHARGE_DIFFERS, "order ", "-0.07"),
    "a fee told again as another": (fee_told_again_as_another, DifferenceKind.EVENT_CONTRADICTS, "event ", "-0.01"),
    "a fee of an order that is not ours": (fee_of_no_order, DifferenceKind.CHARGE_DIFFERS, "order cf-0-1", "-0.07"),
    "charges that are not booked": (charges_not_booked, DifferenceKind.CHARGE_DIFFERS, "order ", "-1.32"),
}
"""What is planted, and the kind, subject and cash by which it is named."""


async def test_charges_that_agree_have_no_difference_and_are_in_no_sum(closes: Database) -> None:
    all_ = await agreeing(closes)
    found = charged(all_).compared()
    assert found.differences == []
    assert found.days == all_.compared().days


@pytest.mark.parametrize("name", PLANTS)
async def test_what_is_planted_in_the_charges_is_named(closes: Database, name: str) -> None:
    made, kind, subject, cash = PLANTS[name]
    (found,) = made(await agreeing(closes)).compared().differences
    assert (found.kind, found.cash) == (kind, Decimal(cash))
    assert found.subject.startswith(subject)


@pytest.mark.parametrize("made", [fee_not_told, charges_not_booked])
async def test_an_order_that_was_charged_a_moment_ago_is_left_out_and_counted(closes: Database, made: Plant) -> None:
    all_ = await agreeing(closes)
    (first,) = (one for one in all_.ledger.rows if one.exec_id == FIRST)
    early = replace(all_, ledger=replace(all_.ledger, at=first.until + timedelta(seconds=29)))
    whole, found = charged(early).compared(), made(early).compared()
    assert (found.differences, found.too_new) == ([], whole.too_new + 1)


async def test_a_fee_that_was_booked_after_the_ledger_was_read_is_left_out_and_counted(closes: Database) -> None:
    found = charges_not_booked(await agreeing(closes))
    records = [TailRecord("execution-events", 0, 7, b"1", json.dumps(one).encode(), ()) for one in found.events]
    written = found.ledger.at.isoformat().encode()
    told = ToldEvents(*read_told([*records[:-1], replace(records[-1], headers=(("ce_time", written),))]))
    compared = compare(found.ledger, told, None, EVERYTHING)
    assert (compared.differences, compared.too_new) == ([], 1)


async def test_an_execution_s_event_that_charges_two_amounts_is_one_difference(closes: Database) -> None:
    found = charged(await agreeing(closes))
    again = {**found.event(exec_id=FIRST, commission="1.25"), "commission": "1.26"}
    (told,) = replace(found, events=(*found.events, again)).compared().differences
    assert told.kind is DifferenceKind.EVENT_CONTRADICTS
