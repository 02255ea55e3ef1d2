"""What each answer of Alpaca's proves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from closeflow.broker.alpaca import classify
from closeflow.broker.alpaca.parse import Account
from closeflow.broker.alpaca.wire import NoReply, NotWritten, Outcome, Reply
from closeflow.domain.model import BrokerStatus, OrderType, RejectClass, Side, TimeInForce, UpdateSource
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelRefused,
    DuplicateId,
    NotAccepted,
    NotFound,
    NotSent,
    Refused,
    Unanswered,
)
from closeflow.domain.sending.ticket import Ticket

AT = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
OF = Account(broker="alpaca", account_id="acc-1")
TICKET = Ticket(
    client_order_id="cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1",
    account_id="acc-1",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal(10),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.DAY,
    limit_price=Decimal("189.25"),
)
ORDER: dict[str, object] = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "client_order_id": TICKET.client_order_id,
    "symbol": "AAPL",
    "asset_class": "us_equity",
    "side": "sell",
    "qty": "10",
    "filled_qty": "0",
    "filled_avg_price": None,
    "status": "accepted",
    "updated_at": "2026-03-02T15:00:00.000001Z",
}


def reply(status: int, body: object = None, retry_after_s: float | None = None) -> Reply:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status=status, body=raw, received_at=AT, retry_after_s=retry_after_s)


def refused(status: int, code: int | None, message: str, **details: object) -> Reply:
    return reply(status, {"message": message, **({} if code is None else {"code": code}), **details})


def submit(outcome: Outcome) -> object:
    return classify.submit_answer(outcome, ticket=TICKET, of=OF)


def look_up(outcome: Outcome, client_order_id: str | None = TICKET.client_order_id) -> object:
    return classify.look_up_answer(outcome, of=OF, client_order_id=client_order_id)


@pytest.mark.parametrize("status", [200, 201, 207])
def test_a_success_with_the_order_that_was_sent_acknowledges_it(status: int) -> None:
    answer = submit(reply(status, ORDER))
    assert isinstance(answer, Acknowledged)
    assert answer.update.order_status is BrokerStatus.NEW
    assert answer.update.source is UpdateSource.SUBMIT
    assert answer.update.broker_order_id == ORDER["id"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>welcome</html>",
        b'{"id": "61e6',
        b"[]",
        b'"ok"',
        b'{"filled_qty": NaN}',
        b"[" * 100_000,
        b"\xff\xfe",
        {},
        {**ORDER, "client_order_id": "cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-2"},
        {**ORDER, "symbol": "MSFT"},
        {**ORDER, "side": "buy"},
        {**ORDER, "side": "short"},
        {**ORDER, "id": None},
        {**ORDER, "status": 7},
        {**ORDER, "filled_qty": "NaN"},
        {**ORDER, "filled_qty": "1e999999"},
        {**ORDER, "updated_at": "yesterday"},
        {**ORDER, "updated_at": "2026-03-02T15:00:00"},
    ],
)
def test_a_success_with_anything_but_that_order_proves_nothing(body: object) -> None:
    assert isinstance(submit(reply(200, body)), Unanswered)


RETRYABLE, TERMINAL = RejectClass.RETRYABLE, RejectClass.TERMINAL


@pytest.mark.parametrize(
    ("status", "code", "message", "name", "reject_class"),
    [
        (422, 42210000, "options market orders are only allowed during market hours", "market_closed", RETRYABLE),
        (403, 40310000, "market is closed", "market_closed", RETRYABLE),
        (422, 42210000, "limit price outside the price band", "price_band", RETRYABLE),
        (403, 40310000, "qty is held for orders", "held_for_orders", RETRYABLE),
        (403, 40310000, "potential wash trade detected. use complex orders", "wash_trade", TERMINAL),
        (403, 40310000, "opposite side market/stop order exists", "opposite_side_open", RETRYABLE),
        (403, 40310000, "cannot open a long buy while a short sell order is open", "opposite_side_open", RETRYABLE),
        (403, 40310000, "trading in this symbol is halted", "symbol_halted", RETRYABLE),
        (422, 42210000, "asset AAPL is currently halted", "symbol_halted", RETRYABLE),
        (403, 40310000, "AAPL is in a LULD trading pause", "symbol_halted", RETRYABLE),
        (403, 40310000, "requested asset is not fractionable", "not_fractionable", TERMINAL),
        (422, 40010001, 'asset "BRK.A" is not fractionable', "not_fractionable", TERMINAL),
        (403, 40310000, "cost basis must be >= minimal amount of order 10", "below_minimum_notional", TERMINAL),
        (422, 42210000, "notional must be at least 1", "below_minimum_notional", TERMINAL),
        (422, 40010001, "order is below the minimum order size", "below_minimum_notional", TERMINAL),
        (422, 42210000, "notional must not be less than 1", "below_minimum_notional", TERMINAL),
        (422, 42210000, "cost basis must be greater than 1", "below_minimum_notional", TERMINAL),
        (422, 42210000, "cost basis must be less than 50000", "over_order_limit", TERMINAL),
        (403, 40310000, "cost basis must be <= maximal amount of order 200000", "over_order_limit", TERMINAL),
        (422, 42210000, "notional must not exceed 200000", "over_order_limit", TERMINAL),
        (422, 42210000, "notional must be at most 200000", "over_order_limit", TERMINAL),
        (403, 40310000, "order notional exceeds the maximum notional of 200000", "over_order_limit", TERMINAL),
        (403, 40310000, "maximum order size is 100, minimum size is 1", "over_order_limit", TERMINAL),
        (422, 42210000, "qty must be <= maximum; minimum size is 1", "over_order_limit", TERMINAL),
        (422, 40010001, "quantity too large; minimum size is 1", "over_order_limit", TERMINAL),
        (
            403,
            40310000,
            "insufficient balance for BTC (requested: 0.5, available: 0.49875)",
            "insufficient_coin_balance",
            TERMINAL,
        ),
        (403, 40310000, "insufficient balance for USD", "insufficient_funds", TERMINAL),
        (422, 42210000, "extended hours order must be DAY limit orders", "extended_hours", RETRYABLE),
        (422, 42210000, "market orders are not accepted in pre-market", "extended_hours", RETRYABLE),
        (422, 42210000, "fractional orders are rejected for this symbol", "bad_quantity", TERMINAL),
        (422, 42210000, "could not find asset ZZZZ", "unknown_symbol", TERMINAL),
        (422, 42210000, 'asset "ZZZZ" not found', "unknown_symbol", TERMINAL),
        (422, 40010001, "invalid symbol", "unknown_symbol", TERMINAL),
        (403, 40310000, "position does not exist", "no_position", TERMINAL),
        (403, 40310000, "account not eligible to trade uncovered option contracts", "no_position", TERMINAL),
        (403, 40310000, "insufficient qty available for order (requested: 9, available: 0)", "no_position", TERMINAL),
        (403, 40310000, "account is not allowed to short", "no_position", TERMINAL),
        (
            422,
            42210000,
            "position intent mismatch, inferred: sell_to_open, specified: sell_to_close",
            "no_position",
            TERMINAL,
        ),
        (403, 40310100, "trade denied due to pattern day trading protection", "pattern_day_trading", TERMINAL),
        (422, 42210000, "asset AAPL is not tradable", "restricted", TERMINAL),
        (403, 40310000, "insufficient buying power", "insufficient_funds", TERMINAL),
        (422, 40010001, "qty must be > 0", "bad_quantity", TERMINAL),
        (422, 42210000, "invalid limit_price 1.001. sub-penny increment", "bad_increment", RETRYABLE),
        (422, 42210000, "limit price must be limited to 2 decimal places", "bad_increment", RETRYABLE),
        (422, 42210000, "limit_price must be a multiple of 0.05", "bad_increment", RETRYABLE),
        (422, 40010001, "qty must be a multiple of the trade increment", "bad_quantity", TERMINAL),
        (422, 40010001, "limit price must be > 0", "bad_price", TERMINAL),
    ],
)
def test_a_refusal_is_told_by_code_and_message(
    status: int, code: int, message: str, name: str, reject_class: RejectClass
) -> None:
    assert submit(refused(status, code, message)) == Refused(name, reject_class, f"{code}: {message}")


def test_a_wash_trade_because_of_the_opposite_order_waits_for_that_one() -> None:
    message = "potential wash trade detected. use complex orders"
    answer = submit(refused(403, 40310000, message, reject_reason="opposite side limit order exists"))
    assert answer == Refused("opposite_side_open", RETRYABLE, f"40310000: {message}")


@pytest.mark.parametrize("status", [403, 422])
@pytest.mark.parametrize(
    "message",
    [
        "new orders are rejected by user request",
        "orders are currently not accepted",
        "all orders are suspended",
        "account is not allowed to trade",
        "account is restricted",
        "trading is halted for this account",
        "trading is temporarily disabled",
        "system is under maintenance",
        "too many requests",
    ],
)
def test_a_refusal_of_every_order_is_no_refusal_of_this_one(status: int, message: str) -> None:
    assert submit(refused(status, 40310000, message)) == NotAccepted(f"40310000: {message}", None, account_wide=True)


@pytest.mark.parametrize(
    "message",
    [
        "asset is restricted for this account",
        "new orders are rejected for this symbol",
        "account is not allowed to short",
        "account is not allowed to trade options",
    ],
)
def test_a_refusal_that_names_something_of_the_order_is_of_this_one(message: str) -> None:
    assert isinstance(submit(refused(403, 40310000, message)), Refused)


def test_a_refusal_that_is_not_in_the_table_is_terminal_and_says_so() -> None:
    expected = Refused("alpaca_40310000", TERMINAL, "40310000: the moon is wrong", mapped=False)
    assert submit(refused(403, 40310000, "the moon is wrong")) == expected
    # The message of one code under another code is not that refusal.
    assert submit(refused(422, 49999999, "market is closed")) == Refused(
        "alpaca_49999999", TERMINAL, "49999999: market is closed", mapped=False
    )


def test_too_little_quantity_comes_back_while_other_orders_hold_it() -> None:
    message = "insufficient qty available for order (requested: 10, available: 0)"
    held = refused(403, 40310000, message, existing_qty="10", held_for_orders="10", available="0")
    gone = refused(403, 40310000, message, existing_qty="0", held_for_orders="0", available="0")
    assert submit(held) == Refused("held_for_orders", RETRYABLE, f"40310000: {message}")
    assert submit(gone) == Refused("no_position", TERMINAL, f"40310000: {message}")


@pytest.mark.parametrize("message", ["client_order_id must be unique", "client order id must be unique"])
def test_a_used_client_order_id_means_that_the_order_exists(message: str) -> None:
    assert submit(refused(422, 40010001, message)) == DuplicateId()
    assert submit(refused(422, 42210000, message)) == DuplicateId()


def test_a_rate_limit_is_no_send_and_carries_the_servers_delay() -> None:
    assert submit(reply(429, b"slow down", 2.0)) == NotAccepted("rate limited", 2.0)


@pytest.mark.parametrize(
    "outcome",
    [
        reply(401, b""),
        refused(401, 40110000, "request is not authorized"),
        refused(403, None, "forbidden."),
        refused(403, 40310000, "account is blocked"),
        refused(403, 40310000, "account is restricted: trading is blocked"),
        refused(403, 40310000, "new orders are rejected: trading is suspended by user request"),
    ],
)
def test_a_bad_key_or_blocked_account_is_no_send_and_nobodys_order(outcome: Reply) -> None:
    answer = submit(outcome)
    assert isinstance(answer, NotAccepted)
    assert answer.credentials


@pytest.mark.parametrize(
    "outcome",
    [
        reply(500, {"code": 50010000, "message": "internal server error occurred"}),
        reply(502, b"<html>Bad Gateway</html>"),
        reply(503, {"code": 40310000, "message": "market is closed"}),
        reply(504),
        reply(301, b"moved"),
        reply(400, {"code": 40010000, "message": "request body format is invalid"}),
        reply(404, {"code": 40410000, "message": "endpoint not found"}),
        reply(408),
        reply(403, b"<html>Access denied by the firewall</html>"),
        reply(403),
        reply(422, b'{"code": 42210000, "mess'),
        reply(422, {"errors": ["no message"]}),
        refused(403, None, "Missing Authentication Token"),
        refused(422, None, "market is closed"),
        reply(422, {"code": True, "message": "no code of Alpaca's"}),
        reply(422, b'{"code": 42210000, "message": "market is closed", "n": 1e99999999999999999999}'),
        NoReply("ReadTimeout"),
    ],
)
def test_whatever_is_not_the_brokers_own_refusal_proves_nothing(outcome: Outcome) -> None:
    assert isinstance(submit(outcome), Unanswered)


def test_what_was_never_written_was_not_sent() -> None:
    assert submit(NotWritten("connection refused")) == NotSent("connection refused")
    assert look_up(NotWritten("connection refused")) == NotSent("connection refused")
    assert classify.cancel_answer(NotWritten("no connection free")) == NotSent("no connection free")


def test_a_look_up_answers_with_the_order_asked_for_only() -> None:
    found = look_up(reply(200, ORDER))
    assert isinstance(found, Acknowledged)
    assert found.update.source is UpdateSource.QUERY
    assert isinstance(look_up(reply(200, {**ORDER, "client_order_id": "somebody-else"})), Unanswered)
    by_broker_id = look_up(reply(200, {**ORDER, "client_order_id": "somebody-else"}), None)
    assert isinstance(by_broker_id, Acknowledged)


def test_only_the_brokers_own_words_about_an_order_are_a_not_found() -> None:
    assert look_up(refused(404, 40410000, "order not found for cf-1")) == NotFound()
    for outcome in (
        refused(404, 40410000, "endpoint not found."),
        refused(404, None, "order not found"),
        reply(404, b"<html>404 order not found</html>"),
        reply(404),
        refused(410, 40410000, "order not found"),
        refused(500, 40410000, "order not found"),
        NoReply("ReadError"),
    ):
        assert isinstance(look_up(outcome), Unanswered), outcome
    assert isinstance(look_up(reply(429)), NotAccepted)
    assert isinstance(look_up(reply(401)), NotAccepted)


def test_a_cancel_is_accepted_refused_or_unknown() -> None:
    assert classify.cancel_answer(reply(204)) == CancelAccepted()
    filled = refused(422, 42210000, 'order is already in "filled" state')
    assert classify.cancel_answer(filled) == CancelRefused('42210000: order is already in "filled" state')
    assert classify.cancel_answer(refused(404, 40410000, "order not found")) == NotFound()
    assert isinstance(classify.cancel_answer(reply(429)), NotAccepted)
    assert isinstance(classify.cancel_answer(reply(401)), NotAccepted)
    for outcome in (
        reply(200, b"<html>"),
        reply(422, b"no"),
        refused(403, None, "Denied"),
        reply(500),
        NoReply("reset"),
    ):
        assert isinstance(classify.cancel_answer(outcome), Unanswered), outcome


def test_a_crypto_order_may_come_back_without_its_slash() -> None:
    ticket = replace(TICKET, symbol="BTC/USD")
    body = {**ORDER, "symbol": "BTCUSD", "asset_class": "crypto"}
    answer = classify.submit_answer(reply(200, body), ticket=ticket, of=OF)
    assert isinstance(answer, Acknowledged)
    assert answer.update.symbol == "BTC/USD"
