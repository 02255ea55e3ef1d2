"""What the broker says of a bench's orders, as records of `broker-fill`, and what was booked of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

from closeflow.contracts import BROKER_FILL, BrokerFillV1, broker_fill_key, encode
from closeflow.contracts.codec import decode
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, Side, UpdateSource
from closeflow.kafka import Record
from tests.pipeline.submitting import Bench

UpdateRecord = Record[BrokerFillV1]


def fill(bench: Bench, request_id: UUID, *, order_id: str | None = None, exec_id: str = "") -> UpdateRecord:
    """The broker has filled all of the request's first order."""
    now = datetime.now(UTC)
    order_id = order_id or client_order_id(request_id, 1)
    update = BrokerUpdate(
        event_id=uuid4(),
        broker="alpaca",
        account_id=bench.account_id,
        symbol=bench.request(request_id)["symbol"],
        client_order_id=order_id,
        side=Side.SELL,
        source=UpdateSource.STREAM,
        exec_type=ExecType.TRADE,
        order_status=BrokerStatus.FILLED,
        transact_time=now,
        received_at=now,
        order_quantity=Decimal(10),
        cum_quantity=Decimal(10),
        broker_order_id=f"broker-{order_id}",
        exec_id=exec_id or uuid4().hex,
        last_quantity=Decimal(10),
        last_price=Decimal("99.5"),
    )
    value = BrokerFillV1.from_domain(update)
    return Record(
        topic=BROKER_FILL,
        partition=0,
        offset=uuid4().int >> 66,
        key=broker_fill_key(order_id),
        value=value,
        raw=encode(value),
        headers=(("traceparent", b"kept"),),
        timestamp=now,
    )


ADD_ORDER: Final = (
    "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side, quantity,"
    " order_type, limit_price, time_in_force) SELECT %(order)s, id, 1, position_id, account_id, symbol, side,"
    " target_qty, 'limit', 100, 'day' FROM close_requests WHERE id = %(id)s"
)
SUBMITTED: Final = "UPDATE close_requests SET status = 'submitted' WHERE id = %(id)s"


def add_order(bench: Bench, request_id: UUID) -> None:
    bench.execute(ADD_ORDER, order=client_order_id(request_id, 1), id=request_id)
    bench.execute(SUBMITTED, id=request_id)


async def published(bench: Bench, count: int) -> list[UpdateRecord]:
    """The account's next records of `broker-fill`, and no more than so many."""
    found: list[UpdateRecord] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, f"broker-fill has {len(found)} of {count} records"
        for batch in (await bench.heard.getmany(timeout_ms=100)).values():
            found += [_record(one) for one in batch if bench.account_id.encode() in one.value]
    assert len(found) == count
    return found


def _record(found: Any) -> UpdateRecord:
    return Record(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        key=found.key,
        value=decode(BrokerFillV1, found.value, found.headers),
        raw=found.value,
        headers=tuple(found.headers),
        timestamp=datetime.now(UTC),
    )


def executions(bench: Bench, request_id: UUID) -> int:
    return len(bench.query("SELECT FROM executions WHERE client_order_id = %(id)s", id=client_order_id(request_id, 1)))
