"""Alpaca's JSON as it really looks, and what the domain gets of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from closeflow.broker.alpaca import market_data, parse
from closeflow.broker.alpaca.stream import read_frame
from closeflow.broker.alpaca.wire import read_json
from closeflow.broker.trade_updates import Unreadable
from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, Side, UpdateSource

AT = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
OF = parse.Account(broker="alpaca", account_id="acc-1")
ASKED_AT = datetime(2026, 3, 2, 15, 0, 7, tzinfo=UTC)
CLIENT_ORDER_ID = "cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1"
ORDER: dict[str, object] = {
    "id": "7a3f0bd3-5b3e-4f4a-9d53-0a7f3f2d6f11",
    "client_order_id": CLIENT_ORDER_ID,
    "created_at": "2026-03-02T14:59:58.123456789Z",
    "updated_at": "2026-03-02T15:00:01.234567891Z",
    "submitted_at": "2026-03-02T14:59:58.12Z",
    "filled_at": None,
    "expired_at": None,
    "asset_class": "us_equity",
    "symbol": "AAPL",
    "notional": None,
    "qty": "10",
    "filled_qty": "4",
    "filled_avg_price": "189.2",
    "order_class": "",
    "type": "limit",
    "side": "sell",
    "time_in_force": "day",
    "limit_price": "189",
    "status": "partially_filled",
    "extended_hours": False,
    "legs": None,
}
SEQUENCE = 1_772_463_601_234_567
FILL: dict[str, object] = {
    "event": "partial_fill",
    "event_id": "01JNB3Q6Z9M6Q9QF3B7S2M2T4C",
    "execution_id": "f1e8c0de-3a2b-4a1c-9e5a-b1c2d3e4f5a6",
    "timestamp": "2026-03-02T15:00:01.2Z",
    "price": "189.2",
    "qty": "4",
    "position_qty": "6",
    "order": ORDER,
}


def of_order(**changes: object) -> BrokerUpdate:
    return parse.order_update({**ORDER, **changes}, of=OF, source=UpdateSource.QUERY, received_at=AT)


ACTIVITY: dict[str, object] = {
    "id": "20260302150001200::8efc7b9a-8b2b-4000-9955-d36e7db0df74",
    "activity_type": "FILL",
    "transaction_time": "2026-03-02T15:00:01.2Z",
    "type": "partial_fill",
    "price": "189.20",
    "qty": "4",
    "side": "sell",
    "symbol": "AAPL",
    "leaves_qty": "6",
    "order_id": ORDER["id"],
    "cum_qty": "4",
    "order_status": "partially_filled",
}
NAME = parse.OrderName(client_order_id=CLIENT_ORDER_ID, symbol="AAPL")


def of_event(event: str, order: dict[str, object] | None = None, **changes: object) -> BrokerUpdate:
    data = {**FILL, "event": event, **changes, "order": {**ORDER, **(order or {})}}
    message = json.dumps({"stream": "trade_updates", "data": data}).encode()
    (update,) = read_frame(message, of=OF, received_at=AT)
    assert isinstance(update, BrokerUpdate)
    return update


def test_an_order_states_its_quantities_and_its_sequence() -> None:
    update = of_order()
    assert update.exec_type is ExecType.ORDER_STATUS
    assert update.order_status is BrokerStatus.PARTIALLY_FILLED
    assert (update.order_quantity, update.cum_quantity, update.leaves_quantity) == (Decimal(10), Decimal(4), Decimal(6))
    assert update.average_price == Decimal("189.2")
    assert update.broker_seq == SEQUENCE
    assert update.transact_time == datetime(2026, 3, 2, 15, 0, 1, 234567, tzinfo=UTC)
    assert update.side is Side.SELL


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *((name, BrokerStatus.NEW) for name in ("new", "accepted", "pending_new", "accepted_for_bidding", "held")),
        *((name, BrokerStatus.NEW) for name in ("stopped", "pending_replace", "calculated")),
        ("partially_filled", BrokerStatus.PARTIALLY_FILLED),
        ("filled", BrokerStatus.FILLED),
        ("pending_cancel", BrokerStatus.PENDING_CANCEL),
        ("canceled", BrokerStatus.CANCELED),
        ("expired", BrokerStatus.EXPIRED),
        ("rejected", BrokerStatus.REJECTED),
        ("replaced", BrokerStatus.REPLACED),
        ("suspended", BrokerStatus.SUSPENDED),
        ("done_for_day", BrokerStatus.DONE_FOR_DAY),
    ],
)
def test_every_status_of_alpacas_has_ours(theirs: str, ours: BrokerStatus) -> None:
    assert of_order(status=theirs).order_status is ours


def test_an_unknown_status_is_kept_as_a_statement_without_one() -> None:
    update = of_order(status="in_orbit")
    assert update.order_status is None
    assert update.cum_quantity == Decimal(4)
    assert update.reason == "the broker's order status 'in_orbit' is not known"


@pytest.mark.parametrize("status", ["filled", "canceled", "expired", "rejected", "done_for_day", "replaced"])
def test_an_order_that_cannot_fill_now_states_no_leaves(status: str) -> None:
    assert of_order(status=status).leaves_quantity is None


def test_an_order_without_updated_at_has_no_sequence() -> None:
    update = of_order(updated_at=None)
    assert update.broker_seq is None
    assert update.transact_time == datetime(2026, 3, 2, 14, 59, 58, 120000, tzinfo=UTC)


def test_equal_statements_have_equal_ids_whoever_asked() -> None:
    asked = of_order()
    answered = parse.order_update(ORDER, of=OF, source=UpdateSource.SUBMIT, received_at=datetime.now(UTC))
    assert asked.event_id == answered.event_id
    assert of_order(filled_qty="4.00").event_id == asked.event_id
    assert of_order(filled_qty="5").event_id != asked.event_id
    assert of_order(updated_at="2026-03-02T15:00:02Z").event_id != asked.event_id
    assert of_order(status="canceled").event_id != asked.event_id


def test_a_fill_is_a_trade_with_its_execution_and_the_orders_state() -> None:
    update = of_event("partial_fill")
    assert update.exec_type is ExecType.TRADE
    assert update.exec_id == "f1e8c0de-3a2b-4a1c-9e5a-b1c2d3e4f5a6"
    assert (update.last_quantity, update.last_price) == (Decimal(4), Decimal("189.2"))
    assert (update.cum_quantity, update.leaves_quantity, update.broker_seq) == (Decimal(4), Decimal(6), SEQUENCE)
    assert update.transact_time == datetime(2026, 3, 2, 15, 0, 1, 200000, tzinfo=UTC)
    assert update.position_quantity == Decimal(6)
    assert update.source is UpdateSource.STREAM
    assert of_event("partial_fill").event_id == update.event_id
    assert of_event("partial_fill", price="189.3").event_id != update.event_id


@pytest.mark.parametrize(
    ("event", "status", "exec_type"),
    [
        ("new", "new", ExecType.NEW),
        ("fill", "filled", ExecType.TRADE),
        ("canceled", "canceled", ExecType.CANCELED),
        ("expired", "expired", ExecType.EXPIRED),
        ("rejected", "rejected", ExecType.REJECTED),
        ("replaced", "replaced", ExecType.REPLACED),
        ("pending_cancel", "pending_cancel", ExecType.PENDING_CANCEL),
        ("suspended", "suspended", ExecType.SUSPENDED),
        ("done_for_day", "done_for_day", ExecType.DONE_FOR_DAY),
        ("order_cancel_rejected", "new", ExecType.CANCEL_REJECTED),
        ("accepted", "accepted", ExecType.ORDER_STATUS),
        ("pending_new", "pending_new", ExecType.ORDER_STATUS),
        ("calculated", "calculated", ExecType.ORDER_STATUS),
        ("order_replace_rejected", "new", ExecType.ORDER_STATUS),
    ],
)
def test_every_event_has_its_execution_type(event: str, status: str, exec_type: ExecType) -> None:
    update = of_event(event, {"status": status})
    assert update.exec_type is exec_type
    assert update.order_status is parse.STATUSES[status]
    assert update.exec_id == (FILL["execution_id"] if exec_type is ExecType.TRADE else None)
    assert BrokerFillV1.from_domain(update).to_domain() == update


def test_a_bust_and_a_correction_name_the_execution_they_change() -> None:
    bust = of_event("trade_bust", previous_execution_id="first", qty=None, price=None)
    assert (bust.exec_type, bust.exec_id, bust.exec_ref_id) == (
        ExecType.TRADE_CANCEL,
        FILL["execution_id"],
        "first",
    )
    correction = of_event("trade_correct", previous_execution_id="first", qty="3", price="189.1")
    assert (correction.exec_type, correction.exec_ref_id) == (ExecType.TRADE_CORRECT, "first")
    assert (correction.last_quantity, correction.last_price) == (Decimal(3), Decimal("189.1"))


@pytest.mark.parametrize("event", ["trade_bust", "trade_correct"])
def test_a_reversal_of_nobody_knows_what_cannot_be_read(event: str) -> None:
    frame = json.dumps({"stream": "trade_updates", "data": {**FILL, "event": event, "order": ORDER}}).encode()
    (message,) = read_frame(frame, of=OF, received_at=AT)
    assert isinstance(message, Unreadable)
    with pytest.raises(parse.Malformed, match="previous_id"):
        parse.fill_activity(ACTIVITY | {"type": event}, of=OF, order=NAME, received_at=AT)


def test_an_unknown_event_becomes_the_state_of_its_order() -> None:
    update = of_event("teleported")
    assert update.exec_type is ExecType.ORDER_STATUS
    assert update.cum_quantity == Decimal(4)
    assert update.reason == "event 'teleported'"


@pytest.mark.parametrize(
    "frame",
    [
        b"{",
        b"[1]",
        b"\xff",
        b'{"stream": "trade_updates"}',
        b'{"stream": "trade_updates", "data": {"event": "fill"}}',
        json.dumps({"stream": "trade_updates", "data": {**FILL, "execution_id": None}}).encode(),
        json.dumps({"stream": "trade_updates", "data": {**FILL, "qty": "many"}}).encode(),
        json.dumps({"stream": "trade_updates", "data": {**FILL, "event": None}}).encode(),
    ],
)
def test_a_message_that_cannot_be_read_is_reported_not_dropped(frame: bytes) -> None:
    (message,) = read_frame(frame, of=OF, received_at=AT)
    assert isinstance(message, Unreadable)


def test_a_control_message_is_not_an_update() -> None:
    frame = b'{"stream": "listening", "data": {"streams": ["trade_updates"]}}'
    assert read_frame(frame, of=OF, received_at=AT) == []


def test_numbers_never_pass_through_a_binary_float() -> None:
    quote = read_json(b'{"t": "2026-03-02T15:00:00Z", "bp": 0.1, "ap": 0.30000000000000004}')
    read = market_data.quote("X", parse.as_object(quote, "quote"), asked_at=ASKED_AT)
    assert read is not None
    assert (read.bid, read.ask) == (Decimal("0.1"), Decimal("0.30000000000000004"))
    assert read.age_s == 7, "by the market data's own clock"


def test_a_fill_activity_carries_what_matches_it_with_the_stream() -> None:
    update = parse.fill_activity(ACTIVITY, of=OF, order=NAME, received_at=AT)
    stream = of_event("partial_fill")
    assert update.exec_id == ACTIVITY["id"]
    assert update.source is UpdateSource.BACKFILL
    for field in ("client_order_id", "side", "cum_quantity", "last_quantity", "last_price", "broker_order_id"):
        assert getattr(update, field) == getattr(stream, field), field


@pytest.mark.parametrize(
    ("kind", "exec_type", "last"),
    [
        ("trade_bust", ExecType.TRADE_CANCEL, None),
        ("trade_correct", ExecType.TRADE_CORRECT, Decimal(4)),
    ],
)
def test_a_reversal_among_the_activities_names_the_one_it_replaces(
    kind: str, exec_type: ExecType, last: Decimal | None
) -> None:
    activity = ACTIVITY | {"type": kind, "previous_id": "earlier::one"}
    update = parse.fill_activity(activity, of=OF, order=NAME, received_at=AT)
    assert (update.exec_type, update.exec_ref_id, update.last_quantity) == (exec_type, "earlier::one", last)
    assert update.event_id != parse.fill_activity(ACTIVITY, of=OF, order=NAME, received_at=AT).event_id
    assert BrokerFillV1.from_domain(update).to_domain() == update


def test_an_activity_of_an_unknown_type_is_not_booked_as_a_fill() -> None:
    with pytest.raises(parse.Malformed, match="'novation' is not known"):
        parse.fill_activity(ACTIVITY | {"type": "novation"}, of=OF, order=NAME, received_at=AT)


def test_a_short_position_is_negative_however_it_is_said() -> None:
    assert parse.position_quantity({"qty": "-5", "side": "short"}) == Decimal(-5)
    assert parse.position_quantity({"qty": "5", "side": "short"}) == Decimal(-5)
    assert parse.position_quantity({"qty": "5", "side": "long"}) == Decimal(5)


@pytest.mark.parametrize(
    ("sides", "read"),
    [
        ({"bp": "0", "ap": "1"}, (None, Decimal(1))),
        ({"bp": "2", "ap": 0}, (Decimal(2), None)),
        ({"bp": None, "ap": "1"}, (None, Decimal(1))),
        ({"ap": "1"}, (None, Decimal(1))),
    ],
)
def test_a_side_that_nobody_quotes_is_absent(
    sides: dict[str, object], read: tuple[Decimal | None, Decimal | None]
) -> None:
    found = market_data.quote("X", {"t": "2026-03-02T15:00:00Z", **sides}, asked_at=ASKED_AT)
    assert found is not None
    assert (found.bid, found.ask) == read


def test_a_quote_without_any_side_is_none() -> None:
    assert market_data.quote("X", {"t": "2026-03-02T15:00:00Z", "bp": "0", "ap": 0}, asked_at=ASKED_AT) is None
