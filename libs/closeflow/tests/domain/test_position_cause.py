"""What a position event says of the change itself: what made it, by how much, at what price."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from closeflow.contracts.outbox import event_value
from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.close.outcome import conclude
from closeflow.domain.model import Book, BrokerUpdate, ExecType
from closeflow.domain.operator.adjust import Adjustment, adjust
from closeflow.domain.operator.requests import Done
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied
from closeflow.domain.position.cause import average_price

from .builders import NOW, POLICY, REQUEST_ID, a_book, a_trade, an_update, working

SAID = ("event_type", "cause", "quantity", "quantity_change", "average_price", "position_version")


def told(book: Book, *updates: BrokerUpdate) -> list[tuple[object, ...]]:
    """What each update, a batch of its own, has published of the position."""
    found = []
    for update in updates:
        order = book.orders[update.client_order_id]
        verdict = judge_update(order, update)
        assert isinstance(verdict, Applied)
        concluded = conclude(book, apply_update(book, order, verdict), now=NOW, policy=POLICY)
        book = concluded.book
        found += [tuple(event_value(event).get(name) for name in SAID) for event in concluded.events]
    return found


def a_bust(exec_id: str, of: str) -> BrokerUpdate:
    return an_update(ExecType.TRADE_CANCEL, exec_id=exec_id, exec_ref_id=of)


def a_correction(exec_id: str, of: str, last: int, price: str) -> BrokerUpdate:
    return an_update(ExecType.TRADE_CORRECT, exec_id=exec_id, exec_ref_id=of, last=last, last_price=Decimal(price))


def test_each_change_says_what_made_it_by_how_much_and_at_what_average_price() -> None:
    said = told(
        a_book(working()),
        a_trade("e-1", 40, 40),
        a_trade("e-2", 20, 60, last_price=Decimal("11.5")),
        a_correction("c-1", "e-2", 25, "12"),
        a_bust("x-1", "e-1"),
    )
    assert said == [
        ("POSITION_REDUCED", "execution", "60", "-40", "10", 6),
        ("POSITION_REDUCED", "execution", "40", "-20", "10.5", 7),
        ("POSITION_REDUCED", "reversal", "35", "-5", "10.769230769230769231", 8),
        ("POSITION_REDUCED", "reversal", "75", "40", "12", 9),
    ]


def test_a_correction_of_the_price_alone_makes_no_version() -> None:
    book = a_book(working(done=40), position=replace(a_book(working()).position, quantity=Decimal(60)))
    assert told(book, a_correction("c-1", "e1", 40, "9")) == []


def test_a_change_from_outside_says_so() -> None:
    given = Adjustment(delta=Decimal(-30), reason="transfer", by="ann")
    outcome = adjust(a_book(working(done=0)), given, expected=None, last=None, now=NOW)
    assert isinstance(outcome, Done)
    (event,) = outcome.events
    value = event_value(event)
    assert (value["cause"], value["quantity"], value["quantity_change"]) == ("adjustment", "70", "-30")


def test_nothing_filled_has_no_average_price() -> None:
    assert average_price(a_book(working()), REQUEST_ID) is None
