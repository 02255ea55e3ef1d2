"""What becomes of an attempt that `submit-order` names: planned from state (rule R9), deferred,
denied, or nothing to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.outcome import conclude
from closeflow.domain.close.plan_order import (
    AlreadyPlanned,
    Asked,
    Deny,
    Disagrees,
    Market,
    Plan,
    PlanRules,
    Submit,
    apply_plan,
    plan,
    plan_incident,
)
from closeflow.domain.ids import client_order_id
from closeflow.domain.market_data import MarketClock, Quote
from closeflow.domain.model import (
    AssetType,
    Book,
    OrderStatus,
    OrderType,
    RequestStatus,
    SendAnswer,
    Side,
    StatementKind,
    TimeInForce,
)
from closeflow.domain.trading_controls import Controls, TradingState

from .builders import (
    ACCOUNT,
    CONTROLS,
    LIMITS,
    NOW,
    OTHER_ID,
    POLICY,
    REQUEST_ID,
    a_book,
    a_position,
    a_request,
    a_send,
    a_statement,
    an_order,
    at,
    canceled,
    refused,
    working,
)

RULES = PlanRules()
OPEN = MarketClock(is_open=True, next_open=at(86_400), at=NOW)
CLOSED = MarketClock(is_open=False, next_open=at(3600), at=NOW)
QUOTE = Quote(symbol="AAPL", bid=Decimal("99.98"), ask=Decimal("100.02"), at=at(-1))
MARKET = Market(clock=OPEN, quotes={"AAPL": QUOTE})


def asked(**changes: Any) -> Asked:
    said = Asked(
        close_request_id=REQUEST_ID, attempt=1, position_id=41, account_id=ACCOUNT, symbol="AAPL", side=Side.SELL
    )
    return replace(said, **changes)


def pending(*orders: Any, **request_changes: Any) -> Book:
    """A position of 100 with a pending request for all of it, and its earlier orders."""
    return a_book(*orders, **{"status": RequestStatus.PENDING, "submitted_at": None, **request_changes})


def planned(book: Book, market: Market = MARKET, controls: Controls = CONTROLS, **said: Any) -> Plan:
    return plan(book, asked(**said), controls=controls, market=market, now=NOW, rules=RULES)


def quantity_left(book: Book, left: int) -> Book:
    """As the fill-processor leaves the position after the fills so far."""
    return replace(book, position=replace(book.position, quantity=Decimal(left)))


def test_the_order_says_all_that_goes_on_the_wire() -> None:
    decided = planned(pending())
    assert isinstance(decided, Submit)
    order = decided.order
    assert order.client_order_id == client_order_id(REQUEST_ID, 1)
    assert (order.side, order.quantity, order.symbol) == (Side.SELL, Decimal(100), "AAPL")
    assert (order.order_type, order.limit_price) == (OrderType.LIMIT, Decimal("99.98"))
    assert (order.time_in_force, order.status) == (TimeInForce.DAY, OrderStatus.PLANNED)
    assert order.quote == {"bid": "99.98", "ask": "100.02", "at": "2026-03-02T14:29:59Z"}
    assert (order.created_at, order.next_send_at, order.sends) == (NOW, NOW, ())


QUANTITIES: dict[str, tuple[Book, int]] = {
    "the target when the position is larger": (pending(target_quantity=Decimal(30)), 30),
    "what an earlier attempt left": (quantity_left(pending(canceled(100, 40), attempt=2), 60), 60),
    "all of it after a refusal": (pending(refused(100), attempt=2), 100),
    "not what another request's live order may still sell": (
        pending(working(30, request_id=OTHER_ID), target_quantity=Decimal(100)),
        70,
    ),
}


@pytest.mark.parametrize(("book", "quantity"), QUANTITIES.values(), ids=QUANTITIES)
def test_the_quantity_is_what_is_owed(book: Book, quantity: int) -> None:
    request = book.requests[REQUEST_ID]
    decided = planned(book, attempt=request.attempt)
    assert isinstance(decided, Submit)
    assert decided.order.quantity == quantity
    assert decided.order.attempt == request.attempt


def test_a_short_position_is_bought_at_the_ask() -> None:
    book = a_book(position=a_position(-100), status=RequestStatus.PENDING, side=Side.BUY, order_type=OrderType.LIMIT)
    decided = planned(book, side=Side.BUY)
    assert isinstance(decided, Submit)
    assert (decided.order.side, decided.order.limit_price) == (Side.BUY, Decimal("100.02"))


def test_a_market_order_has_no_limit_and_keeps_the_quote_that_its_worth_is_measured_at() -> None:
    decided = planned(pending(order_type=OrderType.MARKET))
    assert isinstance(decided, Submit)
    assert (decided.order.order_type, decided.order.limit_price) == (OrderType.MARKET, None)
    assert decided.order.quote is not None
    assert decided.order.quote["bid"] == "99.98"


LADDER: dict[str, tuple[dict[str, Any], int, OrderType, str | None]] = {
    "the first attempt is at the touch": ({}, 0, OrderType.LIMIT, "99.98"),
    "each retry goes a part of the way to the bound": ({}, 1, OrderType.LIMIT, "99.32"),
    "the last one is at the bound": ({}, 3, OrderType.LIMIT, "98.00"),
    "one by hand after it stays there": ({}, 4, OrderType.LIMIT, "98.00"),
    "without a bound the last one is a market order": ({"max_slippage_bps": 10_000}, 3, OrderType.MARKET, None),
    "the user's limit is every rung": ({"limit_price": Decimal("99.99")}, 3, OrderType.LIMIT, "99.99"),
}


@pytest.mark.parametrize(("changes", "sent", "order_type", "price"), LADDER.values(), ids=LADDER)
def test_the_price_climbs_with_the_attempts_that_were_sent(
    changes: dict[str, Any], sent: int, order_type: OrderType, price: str | None
) -> None:
    earlier = [refused(attempt=one + 1) for one in range(sent)]
    unsent = an_order(attempt=sent + 1, status=OrderStatus.DENIED, sends=())
    decided = planned(pending(*earlier, unsent, attempt=sent + 2, **changes), attempt=sent + 2)
    assert isinstance(decided, Submit)
    assert decided.order.order_type is order_type
    assert decided.order.limit_price == (None if price is None else Decimal(price))


def test_the_users_limit_needs_no_quote_and_is_honoured() -> None:
    decided = planned(pending(limit_price=Decimal("101.5")), Market(clock=OPEN))
    assert isinstance(decided, Submit)
    assert decided.order.limit_price == Decimal("101.5")


DONE: dict[str, tuple[Book, dict[str, Any]]] = {
    "its order exists": (a_book(an_order()), {}),
    "its order exists although the request is pending": (pending(an_order()), {}),
    "an older attempt": (pending(refused(), attempt=2), {"attempt": 1}),
    "a completed request": (pending(status=RequestStatus.COMPLETED), {}),
    "a failed request": (pending(status=RequestStatus.FAILED), {}),
    "a request that waits for its retry": (pending(status=RequestStatus.RETRYABLE), {}),
}


@pytest.mark.parametrize(("book", "said"), DONE.values(), ids=DONE)
def test_there_is_nothing_to_plan(book: Book, said: dict[str, Any]) -> None:
    decided = planned(book, **said)
    assert decided == AlreadyPlanned()
    assert apply_plan(book, REQUEST_ID, decided, now=NOW) is book


DISAGREEMENTS: dict[str, dict[str, Any]] = {
    "attempt": {"attempt": 2},
    "symbol": {"symbol": "MSFT"},
    "side": {"side": Side.BUY},
    "account": {"account_id": "other"},
    "position": {"position_id": 42},
}


@pytest.mark.parametrize("said", DISAGREEMENTS.values(), ids=DISAGREEMENTS)
def test_a_message_that_disagrees_sends_nothing_and_tells_a_person(said: dict[str, Any]) -> None:
    book = pending()
    decided = planned(book, **said)
    assert isinstance(decided, Disagrees)
    assert apply_plan(book, REQUEST_ID, decided, now=NOW) is book
    incident = plan_incident(book.requests[REQUEST_ID], decided)
    assert incident is not None
    assert incident.kind == "submit_order_disagrees"


def test_a_pending_request_that_is_not_its_positions_active_one_sends_nothing() -> None:
    book = pending()
    book = replace(book, position=replace(book.position, active_close_request_id=None))
    assert isinstance(planned(book), Disagrees)


GAP = an_order(100, request_id=OTHER_ID, statements=(a_statement(StatementKind.CANCELED, 3, 40),))

DEFERRALS: dict[str, tuple[Book, Market, str, float]] = {
    "no quote": (pending(), Market(clock=OPEN), "no_fresh_quote", 1),
    "no quote for a market order, whose worth is then not known": (
        pending(order_type=OrderType.MARKET),
        Market(clock=OPEN),
        "no_fresh_quote",
        1,
    ),
    "a closed market": (pending(), replace(MARKET, clock=CLOSED), "market_closed", 600),
    "no market clock": (pending(), replace(MARKET, clock=None), "no_market_clock", 1),
    "an open circuit breaker": (pending(), replace(MARKET, sends_resume_at=at(7)), "broker_unavailable", 7),
    "a frozen request": (pending(frozen_reason="poison"), MARKET, "frozen", 1),
    "fills that nobody can name yet": (pending(GAP), MARKET, "fills_not_named", 1),
    "an earlier attempt that may still fill": (
        pending(working(100), attempt=2),
        MARKET,
        "earlier_order_not_done",
        1,
    ),
    "an earlier attempt of unknown fate": (
        pending(an_order(status=OrderStatus.SUBMIT_UNKNOWN), attempt=2),
        MARKET,
        "earlier_order_not_done",
        1,
    ),
    "everything taken by another request's order": (
        pending(working(100, request_id=OTHER_ID)),
        MARKET,
        "nothing_owed",
        1,
    ),
}


@pytest.mark.parametrize(("book", "market", "reason", "after_s"), DEFERRALS.values(), ids=DEFERRALS)
def test_it_is_deferred(book: Book, market: Market, reason: str, after_s: float) -> None:
    attempt = book.requests[REQUEST_ID].attempt
    decided = planned(book, market, attempt=attempt)
    until = assert_deferred(decided, after_s, reason)
    request = apply_plan(book, REQUEST_ID, decided, now=NOW).requests[REQUEST_ID]
    assert (request.status, request.retry_count) == (RequestStatus.PENDING, 0)
    assert (request.next_attempt_at, request.reason, request.deferred_since) == (until, reason, NOW)


def assert_deferred(decided: Plan, after_s: float, reason: str) -> datetime:
    """Where nothing else says when, up to a half later than `after_s`: not all at the same moment."""
    assert isinstance(decided, Defer)
    assert decided.reason == reason
    if after_s > 1:
        assert decided.until == at(after_s)
    assert at(after_s) <= decided.until <= at(after_s * 1.5)
    return decided.until


FULL = replace(LIMITS, window_started_at=at(-20), window_count=100)

CONTROLLED: dict[str, tuple[Controls, str, float]] = {
    "trading is halted": (replace(CONTROLS, state=TradingState.HALTED), "trading_halted", 5),
    "the account has no limits": (replace(CONTROLS, limits=None), "limits_missing", 1),
    "the minute's submits are used up": (replace(CONTROLS, limits=FULL), "submit_limit_reached", 40),
}


@pytest.mark.parametrize(("controls", "reason", "after_s"), CONTROLLED.values(), ids=CONTROLLED)
def test_it_is_deferred_by_a_control(controls: Controls, reason: str, after_s: float) -> None:
    book = pending()
    decided = planned(book, controls=controls)
    assert_deferred(decided, after_s, reason)
    request = apply_plan(book, REQUEST_ID, decided, now=NOW).requests[REQUEST_ID]
    assert (request.status, request.retry_count, request.attempt) == (RequestStatus.PENDING, 0, 1)


@pytest.mark.parametrize("halted", [False, True])
def test_the_deadline_runs_on_while_it_is_deferred(halted: bool) -> None:
    controls = replace(CONTROLS, state=TradingState.HALTED if halted else TradingState.ACTIVE)
    decided = planned(pending(deadline_at=NOW), replace(MARKET, clock=CLOSED), controls)
    assert isinstance(decided, Deny)
    assert decided.code == "deadline_passed"


def test_a_close_passes_while_only_reducing_is_allowed() -> None:
    assert isinstance(planned(pending(), controls=replace(CONTROLS, state=TradingState.REDUCING)), Submit)


TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "more than one order may have": ({"max_order_quantity": Decimal(99)}, "over_max_order_qty"),
    "worth more than one order may be": ({"max_order_notional": Decimal(9997)}, "over_max_order_notional"),
}


@pytest.mark.parametrize(("limits", "code"), TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.parametrize("order_type", OrderType)
def test_an_order_over_a_limit_of_its_account_is_denied_and_a_person_told(
    limits: dict[str, Any], code: str, order_type: OrderType
) -> None:
    book = pending(order_type=order_type)
    decided = planned(book, controls=replace(CONTROLS, limits=replace(LIMITS, **limits)))
    assert isinstance(decided, Deny)
    assert decided.code == code
    incident = plan_incident(book.requests[REQUEST_ID], decided)
    assert incident is not None
    assert incident.kind == "account_limit_breached"
    assert plan_incident(book.requests[REQUEST_ID], Deny("bad_lot", "not this one")) is None


def test_an_order_is_worth_its_price_times_quantity_times_multiplier() -> None:
    book = a_book(position=a_position(100, multiplier=Decimal(100)), status=RequestStatus.PENDING)
    limits = replace(LIMITS, max_order_notional=Decimal("999800"))  # 99.98 × 100 × 100
    assert isinstance(planned(book, controls=replace(CONTROLS, limits=limits)), Submit)
    less = replace(limits, max_order_notional=Decimal("999799"))
    assert isinstance(planned(book, controls=replace(CONTROLS, limits=less)), Deny)


def test_crypto_trades_while_the_market_is_closed() -> None:
    quote = replace(QUOTE, symbol="BTC/USD")
    book = a_book(
        position=a_position(2, symbol="BTC/USD", asset_type=AssetType.CRYPTO),
        status=RequestStatus.PENDING,
        symbol="BTC/USD",
        asset_type=AssetType.CRYPTO,
    )
    decided = planned(book, Market(clock=None, quotes={"BTC/USD": quote}), symbol="BTC/USD")
    assert isinstance(decided, Submit)
    assert decided.order.time_in_force is TimeInForce.GTC


DENIALS: dict[str, tuple[Book, str]] = {
    "the user has cancelled": (pending(cancel_requested_at=NOW), "canceled_by_user"),
    "the deadline has passed": (pending(deadline_at=NOW), "deadline_passed"),
    "a limit that rounds to nothing": (
        a_book(
            position=a_position(-100),
            status=RequestStatus.PENDING,
            side=Side.BUY,
            limit_price=Decimal("0.00001"),
        ),
        "bad_price",
    ),
    "the position changed its side": (quantity_left(pending(), -20), "side_changed"),
}


@pytest.mark.parametrize(("book", "code"), DENIALS.values(), ids=DENIALS)
def test_it_is_denied_and_the_position_is_open_again(book: Book, code: str) -> None:
    held = book.position.quantity
    book = replace(book, base_quantity=held, ledger_quantity=held)
    decided = planned(book, side=book.requests[REQUEST_ID].side)
    assert isinstance(decided, Deny)
    after = conclude(book, apply_plan(book, REQUEST_ID, decided, now=NOW), now=NOW, policy=POLICY)
    request = after.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.FAILED, code)
    assert (after.book.position.status.value, after.book.position.active_close_request_id) == ("open", None)
    assert [event.event_type for event in after.events] == ["CLOSE_REQUEST_FAILED"]


def test_a_denial_after_an_earlier_send_fails_the_close() -> None:
    earlier = refused(sends=(a_send(SendAnswer.REJECTED),))
    book = pending(earlier, attempt=2, cancel_requested_at=None, deadline_at=NOW)
    decided = planned(book, attempt=2)
    after = conclude(book, apply_plan(book, REQUEST_ID, decided, now=NOW), now=NOW, policy=POLICY)
    assert after.book.position.status.value == "close_failed"


def test_a_repeated_record_in_one_batch_sees_the_first_ones_order() -> None:
    book = pending()
    first = planned(book)
    after = apply_plan(book, REQUEST_ID, first, now=NOW)
    assert planned(after) == AlreadyPlanned()
    request = after.requests[REQUEST_ID]
    assert (request.status, request.submitted_at) == (RequestStatus.SUBMITTED, NOW)


def test_a_retry_keeps_when_the_request_was_first_submitted() -> None:
    book = pending(refused(), attempt=2, submitted_at=at(-60), next_attempt_at=at(-1), reason="market_closed")
    after = apply_plan(book, REQUEST_ID, planned(book, attempt=2), now=NOW).requests[REQUEST_ID]
    assert (after.submitted_at, after.next_attempt_at, after.reason) == (at(-60), None, None)


def test_a_request_of_another_position_is_never_touched() -> None:
    other = a_request(id=OTHER_ID, status=RequestStatus.COMPLETED)
    book = a_book(requests=[a_request(status=RequestStatus.PENDING), other])
    after = apply_plan(book, REQUEST_ID, planned(book), now=NOW)
    assert after.requests[OTHER_ID] is other
