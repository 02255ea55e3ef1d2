"""The last check before the wire, and what is done next about an order that is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.model import (
    Book,
    ExecType,
    Order,
    OrderStatus,
    RejectClass,
    RequestStatus,
    Send,
    SendAnswer,
    SendKind,
    Side,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.retry import look_up_again_at, retry_in_s
from closeflow.domain.sending.absence import absence_incident, window
from closeflow.domain.sending.broker_answers import Refused
from closeflow.domain.sending.claim import being_looked_up, claim, not_found, with_send
from closeflow.domain.sending.send_check import Check, Clear, Hold, Withdraw, recheck
from closeflow.domain.sending.ticket import refusal_update, ticket
from closeflow.domain.trading_controls import Controls, TradingState

from .builders import (
    CONTROLS,
    LIMITS,
    NOW,
    OTHER_ID,
    REQUEST_ID,
    a_book,
    a_position,
    a_send,
    a_statement,
    an_order,
    at,
    filled,
    working,
)

UNSENT: tuple[Send, ...] = ()
LATER = at(31)
"""After the lease of the builders' sends."""


def unsent(quantity: int = 100, **changes: Any) -> Order:
    return an_order(quantity, **{"sends": UNSENT, **changes})


def unknown(*sends: Send, **changes: Any) -> Order:
    return an_order(status=OrderStatus.SUBMIT_UNKNOWN, sends=sends or (a_send(SendAnswer.UNKNOWN),), **changes)


def checked(book: Book, *, controls: Controls = CONTROLS, may_repeat: bool = False, now: datetime = NOW) -> Check:
    order = next(one for one in book.orders.values() if one.close_request_id == REQUEST_ID)
    return recheck(book, order, controls=controls, now=now, may_repeat=may_repeat)


def test_a_planned_order_that_was_never_sent_is_clear() -> None:
    assert checked(a_book(unsent())) == Clear()


NOT_SEEN = (SendAnswer.NOT_SENT, SendAnswer.NOT_ACCEPTED)


@pytest.mark.parametrize("answer", NOT_SEEN)
def test_sends_that_the_broker_did_not_take_do_not_count(answer: SendAnswer) -> None:
    assert checked(a_book(an_order(sends=(a_send(answer), a_send(answer, 2))))) == Clear()
    assert checked(a_book(unknown(a_send(answer), a_send(answer, 2)))) == Clear()


HELD: dict[str, tuple[Book, str]] = {
    "a send without an answer": (a_book(an_order(sends=(a_send(None),))), "earlier_send_open"),
    "a send that was accepted": (a_book(an_order()), "earlier_send_open"),
    "a send of unknown outcome": (a_book(unknown()), "earlier_send_open"),
    "an unknown order without a send": (
        a_book(unsent(status=OrderStatus.SUBMIT_UNKNOWN)),
        "earlier_send_open",
    ),
    "a frozen request": (a_book(unsent(), frozen_reason="poison"), "frozen"),
    "a gap anywhere on the position": (
        a_book(
            unsent(50),
            an_order(50, request_id=OTHER_ID, statements=(a_statement(StatementKind.CANCELED, 3, 40),)),
            target_quantity=Decimal(50),
        ),
        "fills_not_named",
    ),
    "the broker has it": (a_book(working()), "not_sendable"),
    "it was filled": (a_book(filled()), "not_sendable"),
    "it was denied": (a_book(unsent(status=OrderStatus.DENIED)), "not_sendable"),
}


@pytest.mark.parametrize(("book", "reason"), HELD.values(), ids=HELD)
def test_it_is_held(book: Book, reason: str) -> None:
    assert checked(book) == Hold(reason)


WITHDRAWN: dict[str, tuple[Book, str, RejectClass]] = {
    "the user cancelled": (a_book(unsent(), cancel_requested_at=NOW), "canceled_by_user", RejectClass.TERMINAL),
    "the order was to be cancelled": (
        a_book(unsent(cancel_requested_at=NOW)),
        "withdrawn",
        RejectClass.RETRYABLE,
    ),
    "the deadline passed": (a_book(unsent(), deadline_at=NOW), "deadline_passed", RejectClass.TERMINAL),
    "the request is over": (
        a_book(unsent(), status=RequestStatus.FAILED),
        "not_the_current_attempt",
        RejectClass.TERMINAL,
    ),
    "a newer attempt exists": (a_book(unsent(), attempt=2), "not_the_current_attempt", RejectClass.TERMINAL),
    "the position is closing for another request": (
        a_book(unsent(), position=a_position(active_close_request_id=OTHER_ID)),
        "not_the_current_attempt",
        RejectClass.TERMINAL,
    ),
    "the symbol is not the position's": (
        a_book(unsent(symbol="MSFT")),
        "not_the_positions_order",
        RejectClass.TERMINAL,
    ),
    "the position changed its side": (
        a_book(unsent(), position=a_position(-100)),
        "side_changed",
        RejectClass.TERMINAL,
    ),
    "more than the target": (
        a_book(unsent(100), target_quantity=Decimal(60)),
        "more_than_owed",
        RejectClass.RETRYABLE,
    ),
    "more than the position": (
        a_book(unsent(100), position=a_position(60)),
        "more_than_owed",
        RejectClass.RETRYABLE,
    ),
    "more than another request's live order leaves": (
        a_book(unsent(100), working(1, request_id=OTHER_ID)),
        "more_than_owed",
        RejectClass.RETRYABLE,
    ),
}


@pytest.mark.parametrize(("book", "code", "reject_class"), WITHDRAWN.values(), ids=WITHDRAWN)
def test_it_must_never_go(book: Book, code: str, reject_class: RejectClass) -> None:
    assert checked(book) == Withdraw(code, reject_class)


def test_what_may_have_been_sent_is_never_withdrawn() -> None:
    for stop in ({"cancel_requested_at": NOW}, {"deadline_at": NOW}, {"attempt": 2}):
        book = a_book(unknown(), **stop)
        assert isinstance(checked(book, may_repeat=True), Hold), stop


REPEATS: dict[str, tuple[Order, Check]] = {
    "an unknown outcome": (unknown(), Clear()),
    "a sender that never answered": (unknown(a_send(None)), Clear()),
    "a second unknown outcome": (unknown(a_send(SendAnswer.UNKNOWN), a_send(SendAnswer.UNKNOWN, 2)), Clear()),
    "not after a refusal, which a repeat would only earn again": (
        unknown(a_send(SendAnswer.UNKNOWN), a_send(SendAnswer.REJECTED, 2)),
        Hold("earlier_send_open"),
    ),
    "not after a cancel was asked for": (unknown(cancel_requested_at=NOW), Hold("withdrawn")),
}


@pytest.mark.parametrize(("order", "check"), REPEATS.values(), ids=REPEATS)
def test_the_same_id_again_where_that_is_proven_safe(order: Order, check: Check) -> None:
    assert checked(a_book(order), may_repeat=True) == check


def test_a_claim_numbers_the_send_leases_it_and_forgets_older_absence() -> None:
    order, send = claim(unknown(not_found_count=3), SendKind.SUBMIT, sender="me", now=LATER, lease_s=30)
    assert (send.n, send.sender, send.lease_until, send.answer) == (2, "me", at(61), None)
    assert (order.next_send_at, order.not_found_count) == (at(61), 0)
    assert with_send(order, send).sends[-1] is send


@pytest.mark.parametrize("answer", [None, *SendAnswer], ids=lambda one: one or "none")
def test_an_order_is_unknown_once_it_has_to_be_looked_up_though_it_was_sent(answer: SendAnswer | None) -> None:
    """Also when it was accepted: its acknowledgement may never be applied, and then only time or a person ends it."""
    looked_up = being_looked_up(an_order(sends=(a_send(answer),)), now=LATER)
    assert looked_up.status is (OrderStatus.PLANNED if answer in NOT_SEEN else OrderStatus.SUBMIT_UNKNOWN)
    assert being_looked_up(working(), now=LATER).status is OrderStatus.NEW


LOOK_UPS = {"at first at once": (1.2, 0.5), "then more slowly": (11, 5), "at most every 30 s": (601, 30)}


@pytest.mark.parametrize(("asked_at", "pause"), LOOK_UPS.values(), ids=LOOK_UPS)
def test_look_ups_slow_down(asked_at: float, pause: float) -> None:
    assert look_up_again_at(unknown(), now=at(asked_at)) == at(asked_at + pause)


RETRIES = {
    "the first, at most 2 s": ((a_send(None),), 1.0, None, 2.0),
    "with full jitter": ((a_send(None),), 0.25, None, 0.5),
    "never at once": ((a_send(None),), 0.0, None, 0.1),
    "the third in a row, at most 8 s": (
        (a_send(SendAnswer.NOT_SENT), a_send(SendAnswer.NOT_ACCEPTED, 2), a_send(None, 3)),
        1.0,
        None,
        8.0,
    ),
    "capped": (tuple(a_send(SendAnswer.NOT_SENT, n) for n in range(1, 12)), 1.0, None, 30.0),
    "counted from the last that was seen": ((a_send(SendAnswer.UNKNOWN), a_send(None, 2)), 1.0, None, 2.0),
    "when the broker says": ((a_send(None),), 0.5, 12.0, 12.0),
    "but not in a year": ((a_send(None),), 0.5, 1e9, 300.0),
}


@pytest.mark.parametrize(("sends", "jitter", "asked_s", "pause"), RETRIES.values(), ids=RETRIES)
def test_what_was_not_taken_is_due_again(
    sends: tuple[Send, ...], jitter: float, asked_s: float | None, pause: float
) -> None:
    assert retry_in_s(an_order(sends=sends), jitter=jitter, asked_s=asked_s) == pause


def test_a_not_found_is_evidence_once_every_lease_is_over() -> None:
    order = unknown(not_found_count=1)
    assert not_found(order, now=at(29)).not_found_count == 1
    assert not_found(order, now=at(30)).not_found_count == 2
    assert not_found(order, now=at(30)).next_send_at == at(44.5)


ABSENCES = {
    "five over a minute": (5, 90, 60, 5, True),
    "four are too few": (4, 900, 900, 5, False),
    "a minute has not passed since the lease": (9, 89, 60, 5, False),
    "three visibility lags count more": (5, 119, 90, 30, False),
    "three visibility lags": (5, 120, 90, 30, True),
    "the database's clock jumped an hour": (5, 3690, 59, 5, False),
}


@pytest.mark.parametrize(("count", "seconds", "watched_s", "lag", "told"), ABSENCES.values(), ids=ABSENCES)
def test_evidence_of_absence_is_brought_to_a_person(
    count: int, seconds: float, watched_s: float, lag: float, told: bool
) -> None:
    order = unknown(a_send(None), not_found_count=count)
    incident = absence_incident(order, now=at(seconds), watched_s=watched_s, within=window(lag))
    assert (incident is not None) is told
    if incident is not None:
        assert (incident.kind, incident.client_order_id) == ("order_not_found", order.client_order_id)
        assert "s1" in incident.detail


def test_a_ticket_is_a_function_of_what_never_changes() -> None:
    order = unsent(limit_price=Decimal("9.98"))
    later = replace(order, status=OrderStatus.SUBMIT_UNKNOWN, next_send_at=LATER, not_found_count=2)
    assert ticket(order) == ticket(with_send(later, a_send()))
    assert (ticket(order).side, ticket(order).limit_price) == (Side.SELL, Decimal("9.98"))


def test_a_refusal_is_evidence_without_a_broker_order_id_and_with_the_same_id_each_time() -> None:
    said = Refused("market_closed", RejectClass.RETRYABLE, "market is closed")
    update = refusal_update(ticket(unsent()), 1, said, broker="alpaca", at=NOW)
    assert (update.exec_type, update.source) == (ExecType.REJECTED, UpdateSource.SUBMIT)
    assert (update.broker_order_id, update.cum_quantity) == (None, None)
    assert (update.reject_code, update.reject_class) == ("market_closed", RejectClass.RETRYABLE)
    again = refusal_update(ticket(unsent()), 1, said, broker="alpaca", at=LATER)
    assert again.event_id == update.event_id
    other = refusal_update(ticket(unsent()), 2, said, broker="alpaca", at=NOW)
    assert other.event_id != update.event_id


def test_an_unmapped_refusal_has_no_class_so_that_its_reader_reports_it() -> None:
    said = Refused("alpaca_1", RejectClass.TERMINAL, "?", mapped=False)
    assert refusal_update(ticket(unsent()), 1, said, broker="alpaca", at=NOW).reject_class is None


HALTED = replace(CONTROLS, state=TradingState.HALTED)
FULL = replace(CONTROLS, limits=replace(LIMITS, window_started_at=at(-20), window_count=100))

CONTROLLED: dict[str, tuple[Controls, Check]] = {
    "it is active": (CONTROLS, Clear()),
    "only reducing, which a close does": (replace(CONTROLS, state=TradingState.REDUCING), Clear()),
    "it is halted": (HALTED, Hold("trading_halted")),
    "the controls are another account's": (replace(CONTROLS, account_id="other"), Hold("trading_halted")),
    "the account has no limits": (replace(CONTROLS, limits=None), Hold("limits_missing")),
    "the minute's submits are used up": (FULL, Hold("submit_limit_reached", at(40))),
}


@pytest.mark.parametrize(("controls", "check"), CONTROLLED.values(), ids=CONTROLLED)
def test_the_controls_are_checked_again_before_the_wire(controls: Controls, check: Check) -> None:
    assert checked(a_book(unsent()), controls=controls) == check


def test_a_repeat_is_held_by_a_halt_too() -> None:
    assert checked(a_book(unknown()), may_repeat=True) == Clear()
    assert checked(a_book(unknown()), may_repeat=True, controls=HALTED) == Hold("trading_halted")


LIMITED: dict[str, tuple[Order, dict[str, Any], str]] = {
    "more than one order may have": (unsent(), {"max_order_quantity": Decimal(99)}, "over_max_order_qty"),
    "worth more at its limit": (unsent(), {"max_order_notional": Decimal(999)}, "over_max_order_notional"),
    "worth more at the touch than at its limit": (
        unsent(quote={"bid": "11", "ask": "12", "at": "2026-03-02T14:29:59Z"}),
        {"max_order_notional": Decimal(1099)},
        "over_max_order_notional",
    ),
    "a market order, by the touch": (
        unsent(limit_price=None, quote={"bid": "11", "ask": "12", "at": "2026-03-02T14:29:59Z"}),
        {"max_order_notional": Decimal(1099)},
        "over_max_order_notional",
    ),
}


@pytest.mark.parametrize(("order", "limits", "code"), LIMITED.values(), ids=LIMITED)
def test_an_order_over_a_limit_is_withdrawn_and_a_person_told(order: Order, limits: dict[str, Any], code: str) -> None:
    found = checked(a_book(order), controls=replace(CONTROLS, limits=replace(LIMITS, **limits)))
    assert isinstance(found, Withdraw)
    assert (found.code, found.reject_class) == (code, RejectClass.TERMINAL)
    assert found.incident is not None
    assert (found.incident.kind, found.incident.client_order_id) == ("account_limit_breached", order.client_order_id)


def test_an_order_over_a_limit_that_the_broker_may_have_is_not_withdrawn() -> None:
    tight = replace(CONTROLS, limits=replace(LIMITS, max_order_quantity=Decimal(1)))
    assert checked(a_book(unknown()), may_repeat=True, controls=tight) == Hold("over_max_order_qty")


def test_an_order_whose_worth_is_not_known_is_planned_anew() -> None:
    found = checked(a_book(unsent(limit_price=None)))
    assert found == Withdraw("order_without_price", RejectClass.RETRYABLE)
