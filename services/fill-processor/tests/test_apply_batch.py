"""What a batch of broker updates makes of the books: the second update sees what the first decided (R10)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.domain.batch import APPLIED, IGNORED, PARKED
from closeflow.domain.ids import NAMESPACE, client_order_id
from closeflow.domain.model import (
    AssetType,
    Book,
    BrokerStatus,
    CloseRequest,
    ExecType,
    Order,
    OrderStatus,
    OrderType,
    Position,
    PositionStatus,
    RequestStatus,
    Send,
    SendKind,
    Side,
    Statement,
    StatementKind,
    TimeInForce,
    Topic,
    UpdateSource,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.retry import RetryPolicy
from closeflow.kafka.records import Record
from fill_processor.apply_batch import Known, UpdateRecord, UpdatesResult, apply_batch, poisoned

NOW: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
HUNDRED: Final = Decimal(100)


def request_id(position_id: int) -> UUID:
    return uuid5(NAMESPACE, f"request/{position_id}")


def order_id(position_id: int, attempt: int = 1) -> str:
    return client_order_id(request_id(position_id), attempt)


def a_book(position_id: int = 1) -> Book:
    """A long of 100 whose whole close was sent and not answered yet."""
    position = Position(
        id=position_id,
        account_id="A",
        symbol="AAPL",
        asset_type=AssetType.STOCK,
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=HUNDRED,
        quantity=HUNDRED,
        status=PositionStatus.CLOSING,
        version=5,
        active_close_request_id=request_id(position_id),
    )
    request = CloseRequest(
        id=request_id(position_id),
        position_id=position_id,
        account_id="A",
        idempotency_key="k",
        fingerprint="f",
        requested_by="desk",
        status=RequestStatus.SUBMITTED,
        symbol="AAPL",
        side=Side.SELL,
        asset_type=AssetType.STOCK,
        target_quantity=HUNDRED,
        filled_quantity=Decimal(0),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        working_timeout_s=60,
        max_retries=3,
        created_at=NOW,
    )
    order = Order(
        client_order_id=order_id(position_id),
        close_request_id=request.id,
        attempt=1,
        position_id=position_id,
        account_id="A",
        symbol="AAPL",
        side=Side.SELL,
        quantity=HUNDRED,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        status=OrderStatus.PLANNED,
        created_at=NOW,
        sends=(Send(kind=SendKind.SUBMIT, n=1, sender="s", lease_until=NOW, started_at=NOW),),
    )
    return Book(
        position=position,
        base_quantity=HUNDRED,
        ledger_quantity=HUNDRED,
        requests={request.id: request},
        orders={order.client_order_id: order},
    )


def a_record(exec_type: ExecType = ExecType.NEW, **fields: Any) -> UpdateRecord:
    position_id = fields.pop("position_id", 1)
    values: dict[str, Any] = {
        "event_id": uuid4(),
        "broker": "alpaca",
        "account_id": "A",
        "symbol": "AAPL",
        "client_order_id": order_id(position_id),
        "broker_order_id": f"b-{position_id}",
        "exec_type": exec_type,
        "side": Side.SELL,
        "transact_time": NOW,
        "received_at": NOW,
        "source": UpdateSource.STREAM,
        **fields,
    }
    value = BrokerFillV1(**values)
    return Record(
        topic="broker-fill",
        partition=3,
        offset=7,
        key=b"key",
        value=value,
        raw=value.model_dump_json().encode(),
        headers=(("traceparent", b"00-aa"), ("empty", None)),
        timestamp=NOW,
    )


def a_fill(exec_id: str, quantity: int, cum: int, **fields: Any) -> UpdateRecord:
    amounts = {"last_qty": Decimal(quantity), "last_px": Decimal(10), "cum_qty": Decimal(cum)}
    return a_record(ExecType.TRADE, exec_id=exec_id, **amounts, **fields)


def folded(*records: UpdateRecord, books: tuple[Book, ...] = (), **known: Any) -> UpdatesResult:
    return apply_batch(knowing(*books or (a_book(),), **known), records, policy=RetryPolicy())


def knowing(*books: Book, **known: Any) -> Known:
    positions = {key: book.position.id for book in books for key in book.requests}
    values: dict[str, Any] = {"applied": frozenset(), "taken": {}, **known}
    return Known(books={book.position.id: book for book in books}, positions=positions, now=NOW, **values)


def event_types(result: UpdatesResult) -> list[str]:
    return [event.event_type for event in result.events]


def test_the_second_update_sees_what_the_first_made_of_the_order() -> None:
    result = folded(a_fill("e1", 40, 40), a_fill("e2", 60, 100), a_fill("e1", 40, 40))
    order = result.books[1].orders[order_id(1)]
    assert (order.status, order.executed_quantity) == (OrderStatus.FILLED, HUNDRED)
    assert result.verdicts == ["Applied", "Applied", "Repeated"]


def test_a_batch_makes_one_position_event_with_the_next_version_and_one_event_per_execution() -> None:
    result = folded(a_record(), a_fill("e1", 40, 40), a_fill("e2", 60, 100))
    assert event_types(result) == ["EXECUTION_RECORDED", "EXECUTION_RECORDED", "POSITION_CLOSED"]
    assert [event.position_version for event in result.events] == [None, None, 6]
    assert result.books[1].position.version == 6
    assert result.books[1].requests[request_id(1)].status is RequestStatus.COMPLETED


def test_the_name_of_the_other_feed_makes_no_second_execution_event() -> None:
    listed = a_fill("a1", 40, 40, source=UpdateSource.BACKFILL)
    assert event_types(folded(a_fill("e1", 40, 40), listed)) == ["EXECUTION_RECORDED", "POSITION_REDUCED"]


def test_a_statement_alone_makes_no_event() -> None:
    result = folded(a_record(order_status=BrokerStatus.NEW, cum_qty=Decimal(0)))
    assert result.events == []
    assert result.books[1].orders[order_id(1)].status is OrderStatus.NEW


def test_positions_of_one_batch_are_settled_apart() -> None:
    result = folded(a_fill("e1", 100, 100), a_fill("e2", 30, 30, position_id=2), books=(a_book(1), a_book(2)))
    assert [result.books[key].position.status for key in (1, 2)] == [PositionStatus.CLOSED, PositionStatus.CLOSING]
    assert [(one.topic, one.position_id) for one in result.events if one.topic is Topic.POSITION_EVENTS] == [
        (Topic.POSITION_EVENTS, 1),
        (Topic.POSITION_EVENTS, 2),
    ]


def test_an_event_that_was_applied_before_is_not_even_judged() -> None:
    fill = a_fill("e1", 40, 40)
    result = folded(fill, applied=frozenset({fill.value.event_id}))
    assert (result.verdicts, result.outcomes, result.events) == (["Repeated"], {}, [])
    assert result.books[1] == a_book()


def test_an_event_that_comes_twice_in_a_batch_is_applied_once() -> None:
    fill = a_fill("e1", 40, 40)
    result = folded(fill, fill)
    assert result.outcomes == {fill.value.event_id: APPLIED}
    assert result.books[1].position.quantity == 60


def test_the_same_fact_under_another_event_id_is_ignored() -> None:
    first, second = a_fill("e1", 40, 40), a_fill("e1", 40, 40)
    result = folded(first, second)
    assert result.outcomes == {first.value.event_id: APPLIED, second.value.event_id: IGNORED}


def test_not_found_is_ignored_and_settles_nothing() -> None:
    record = a_record(ExecType.NOT_FOUND, broker_order_id=None)
    result = folded(record)
    assert (result.outcomes, result.books[1]) == ({record.value.event_id: IGNORED}, a_book())


def test_an_order_of_ours_that_is_not_there_is_parked_whole() -> None:
    record = a_fill("e1", 40, 40, client_order_id=order_id(1, attempt=2))
    result = folded(record)
    (parked,) = result.parked
    assert (parked.topic, parked.partition, parked.offset) == ("broker-fill", 3, 7)
    assert (parked.key, parked.value, parked.reason) == (b"key", record.raw, "unknown_order")
    assert parked.headers == {"traceparent": "00-aa", "empty": ""}
    assert result.outcomes == {record.value.event_id: PARKED}
    assert [one.kind for one in result.incidents] == ["unknown_order"]
    assert result.books[1] == a_book()


def test_an_order_of_a_request_that_is_not_there_is_parked() -> None:
    assert folded(a_fill("e1", 40, 40, position_id=9)).parked[0].reason == "unknown_order"


def test_somebody_elses_order_is_parked_and_never_matched_by_its_symbol() -> None:
    result = folded(a_fill("e1", 40, 40, client_order_id="by-hand"))
    assert (result.parked[0].reason, result.parked[0].client_order_id) == ("foreign_order", "by-hand")
    assert [one.kind for one in result.incidents] == ["foreign_order"]


def test_somebody_elses_orders_are_one_incident_of_the_account() -> None:
    result = folded(*(a_fill(f"e{n}", 40, 40, client_order_id=f"by-hand-{n}") for n in range(3)))
    assert len(result.parked) == 3
    said = {(one.kind, one.severity, one.subject, one.client_order_id) for one in result.incidents}
    assert said == {("foreign_order", "warning", "A", None)}
    assert "by-hand-2" in result.incidents[-1].detail


def test_a_parked_event_that_comes_again_is_judged_again() -> None:
    record = a_fill("e1", 40, 40, client_order_id="by-hand")
    assert len(folded(record, record).parked) == 2


def test_a_contradiction_is_returned_for_the_dead_letters_and_freezes_the_request() -> None:
    record = a_fill("e1", 40, 40, symbol="MSFT")
    result = folded(record)
    assert [(one, reason) for one, reason in result.quarantined] == [(record, "symbol is MSFT, the order's is AAPL")]
    assert result.outcomes == {record.value.event_id: PARKED}
    assert [(one.kind, one.client_order_id) for one in result.incidents] == [("contradicts_order", order_id(1))]
    assert result.books[1].requests[request_id(1)].frozen_reason == "contradicts_order"
    assert result.books[1].position == a_book().position


def test_the_update_after_a_contradiction_is_applied() -> None:
    result = folded(a_record(symbol="MSFT"), a_fill("e1", 40, 40))
    assert result.books[1].position.quantity == 60
    assert result.books[1].requests[request_id(1)].frozen_reason == "contradicts_order"


def test_an_execution_id_that_is_booked_on_another_order_is_a_contradiction() -> None:
    result = folded(a_fill("e1", 40, 40), taken={("alpaca", "A", "e1"): "cf-other"})
    assert [one.kind for one in result.incidents] == ["execution_of_another_order"]


def test_and_so_is_one_that_an_earlier_update_of_the_batch_booked() -> None:
    books = (a_book(1), a_book(2))
    result = folded(a_fill("e1", 40, 40), a_fill("e1", 40, 40, position_id=2), books=books)
    assert result.books[1].position.quantity == 60
    assert result.books[2].position.quantity == 100
    assert [(one.kind, one.position_id) for one in result.incidents] == [("execution_of_another_order", 2)]


def test_an_update_that_only_opens_an_incident_is_applied_once() -> None:
    first, changed = a_fill("e1", 40, 40), a_fill("e1", 39, 40)
    result = folded(first, changed)
    assert [one.kind for one in result.incidents] == ["execution_changed"]
    assert result.books[1].position.quantity == 60
    assert result.outcomes == {first.value.event_id: APPLIED, changed.value.event_id: APPLIED}
    assert event_types(result) == ["EXECUTION_RECORDED", "POSITION_REDUCED"]


def test_a_late_execution_of_a_closed_position_is_booked_with_an_incident() -> None:
    closed = folded(a_fill("e1", 100, 100)).books[1]
    late = folded(a_fill("e2", 20, 120), books=(closed,))
    assert event_types(late) == ["EXECUTION_RECORDED"]
    assert late.books[1].ledger_quantity == -20
    assert late.books[1].position == closed.position
    assert {one.kind for one in late.incidents} == {"overfill"}


def test_a_poisoned_record_is_parked_and_freezes_its_request() -> None:
    record = a_fill("e1", 40, 40)
    result = poisoned(knowing(a_book()), record, "numeric field overflow")
    assert result.books[1].requests[request_id(1)].frozen_reason == "poison"
    assert (result.parked[0].value, result.parked[0].reason) == (record.raw, "numeric field overflow")
    assert (result.events, result.outcomes) == ([], {record.value.event_id: PARKED})
    assert [(one.kind, one.detail) for one in result.incidents] == [("poison", "numeric field overflow")]


def test_a_poisoned_record_without_a_book_is_parked_too() -> None:
    result = poisoned(knowing(), a_record(), "bad")
    assert (result.books, len(result.parked)) == ({}, 1)


def test_what_was_known_is_not_changed() -> None:
    book, taken = a_book(), {("alpaca", "A", "e0"): order_id(1)}
    folded(a_fill("e1", 40, 40), books=(book,), taken=taken)
    assert book == a_book()
    assert taken == {("alpaca", "A", "e0"): order_id(1)}


def test_a_statement_that_was_applied_before_is_read_again_once_its_order_is_lost() -> None:
    said: dict[str, Any] = {"order_status": BrokerStatus.NEW, "cum_qty": Decimal(0), "broker_seq": 3}
    first = a_record(ExecType.ORDER_STATUS, **said)
    book = folded(first).books[1]
    order = book.orders[order_id(1)]
    word = Statement(
        kind=StatementKind.LOST,
        stated_at=NOW + timedelta(hours=1),
        source="operator",
        broker_seq=order.broker_update_seq,
    )
    lost = order_status.derive(replace(order, statements=(*order.statements, word)))
    assert lost.status is OrderStatus.LOST
    book = replace(book, orders={lost.client_order_id: lost})
    same_id = {"event_id": first.value.event_id, "received_at": NOW - timedelta(hours=1)}

    result = folded(a_record(ExecType.ORDER_STATUS, **said, **same_id), books=(book,), applied={first.value.event_id})
    assert result.books[1].orders[order_id(1)].status is OrderStatus.NEW
    assert [one.kind for one in result.incidents] == ["record_was_wrong"]
    assert result.books[1].requests[request_id(1)].frozen_reason == "record_was_wrong"


def test_when_we_heard_of_it_is_told_by_the_database() -> None:
    """By the publisher's clock it was an hour ago, or will be in an hour: then the order would not count as quiet, its
    gap not be seen, and a refused cancel be taken for an older or a later one."""
    for hours in (-1, 1):
        said: dict[str, Any] = {"received_at": NOW + timedelta(hours=hours), "order_status": BrokerStatus.NEW}
        result = folded(a_record(ExecType.CANCEL_REJECTED, cum_qty=Decimal(0), broker_seq=3, **said))
        order = result.books[1].orders[order_id(1)]
        assert order.last_broker_update_at == NOW
        assert [one.heard_at for one in order.statements] == [NOW]
