"""What the broker takes back, or brings too much of, as rows: written by the fill-processor, found right by verify."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from closectl.verifying.ledger import check_ledger
from closectl.verifying.report import Looked
from closectl.verifying.run import check_database
from closectl.verifying.topics import check_topics
from closeflow.domain.model import BrokerStatus, ExecType
from closeflow.storage.close_requests import lock_books_to_accept
from closeflow.storage.core.engine import transaction
from closeflow.storage.verify.snapshot import snapshot
from tests.closectl.publishing import published
from tests.closectl.seeding import REQUESTS, Closes

TRADED: Final[dict[str, Any]] = {
    "exec_type": ExecType.TRADE,
    "order_status": BrokerStatus.FILLED,
    "last_price": Decimal(100),
}
BUSTED: Final[dict[str, Any]] = {"exec_type": ExecType.TRADE_CANCEL, "order_status": BrokerStatus.FILLED}


async def made(engine: AsyncEngine) -> Closes:
    """Position 1, ten shares of which the broker says that they were sold."""
    closes = Closes(engine)
    await closes.make_all()
    return closes


async def the_row(engine: AsyncEngine, query: str) -> tuple[object, ...]:
    async with transaction(engine) as tx:
        return tuple((await tx.execute(text(query))).one())


async def the_events(engine: AsyncEngine, position_id: int, topic: str) -> list[str]:
    query = text(
        "SELECT event_type FROM outbox_events WHERE position_id = :id AND topic = :topic"
        " ORDER BY xact_id, occurred_at, id"
    )
    async with transaction(engine) as tx:
        return [row.event_type for row in await tx.execute(query, {"id": position_id, "topic": topic})]


async def violations(engine: AsyncEngine) -> list[object]:
    async with snapshot(engine) as tx:
        _, findings = await check_database(tx)
    state, records = await published(engine)
    findings += [*check_topics(state, records), *check_ledger(state, records)]
    return [one for part in findings if isinstance(part, Looked) for one in part.violations]


async def test_a_bust_after_the_close_reopens_the_position(engine: AsyncEngine) -> None:
    closes = await made(engine)
    await closes.tell(
        1,
        exec_type=ExecType.TRADE_CANCEL,
        order_status=BrokerStatus.CANCELED,
        cum_quantity=Decimal(4),
        exec_id="bust-1",
        exec_ref_id="fill-1-1-10",
    )
    row = await the_row(
        engine, "SELECT quantity, status, closed_at, reopened_at IS NOT NULL FROM positions WHERE id = 1"
    )
    assert row == (Decimal(6), "close_retryable", None, True)
    row = await the_row(engine, "SELECT kind, ref_exec_id, quantity FROM executions WHERE exec_id = 'bust-1'")
    assert row == ("bust", "fill-1-1-10", None)
    assert await the_events(engine, 1, "execution-events") == ["EXECUTION_RECORDED"] * 2 + ["EXECUTION_REVERSED"]
    assert (await the_events(engine, 1, "position-events"))[-1] == "POSITION_REOPENED"
    assert await violations(engine) == []


async def test_a_correction_changes_what_an_execution_counts_for(engine: AsyncEngine) -> None:
    closes = await made(engine)
    await closes.tell(
        1,
        exec_type=ExecType.TRADE_CORRECT,
        order_status=BrokerStatus.PARTIALLY_FILLED,
        cum_quantity=Decimal(9),
        exec_id="correct-1",
        exec_ref_id="fill-1-1-10",
        last_quantity=Decimal(5),
        last_price=Decimal("100.10"),
    )
    row = await the_row(
        engine,
        "SELECT p.quantity, p.status, o.executed_qty, o.avg_price FROM positions p"
        " JOIN orders o ON o.position_id = p.id WHERE p.id = 1",
    )
    assert row == (Decimal(1), "closing", Decimal(9), (4 * Decimal("100.25") + 5 * Decimal("100.10")) / 9)
    events = await the_events(engine, 1, "execution-events")
    assert sorted(events[2:]) == ["EXECUTION_CORRECTED", "EXECUTION_REVERSED"]
    assert await violations(engine) == []


async def test_an_overfill_becomes_a_tagged_position_that_follows_it(engine: AsyncEngine) -> None:
    closes = await made(engine)
    await closes.tell(1, cum_quantity=Decimal(13), exec_id="over", last_quantity=Decimal(3), **TRADED)
    tagged = "SELECT opening_qty, quantity, status, version FROM positions WHERE overfill_of = 1"
    assert await the_row(engine, tagged) == (Decimal(-3), Decimal(-3), "open", 2)
    assert await violations(engine) == []
    await closes.tell(
        1,
        exec_type=ExecType.TRADE_CORRECT,
        order_status=BrokerStatus.FILLED,
        cum_quantity=Decimal(12),
        exec_id="over-2",
        exec_ref_id="over",
        last_quantity=Decimal(2),
        last_price=Decimal(100),
    )
    assert await the_row(engine, tagged) == (Decimal(-2), Decimal(-2), "open", 3)
    await closes.tell(1, exec_id="over-3", exec_ref_id="over", cum_quantity=Decimal(10), **BUSTED)
    assert await the_row(engine, tagged) == (Decimal(0), Decimal(0), "closed", 4)
    assert await the_row(engine, "SELECT quantity, status FROM positions WHERE id = 1") == (Decimal(0), "closed")
    assert await violations(engine) == []


async def test_what_was_filled_beyond_is_not_to_be_closed_before_its_incident_is(engine: AsyncEngine) -> None:
    closes = await made(engine)
    await closes.tell(1, cum_quantity=Decimal(13), exec_id="over", last_quantity=Decimal(3), **TRADED)
    (tagged,) = await the_row(engine, "SELECT id FROM positions WHERE overfill_of = 1")
    assert isinstance(tagged, int)

    async def disputed() -> bool:
        async with transaction(engine) as tx:
            return (await lock_books_to_accept(tx, keys=[(tagged, "k")], visible={tagged: None})).books[tagged].disputed

    assert await disputed()
    async with transaction(engine) as tx:
        await tx.execute(text("UPDATE incidents SET closed_at = now() WHERE kind = 'overfill'"))
    assert not await disputed()


@pytest.mark.parametrize(
    ("corrected", "quantity", "canceling"),
    [(Decimal(2), Decimal(-2), True), (Decimal(5), Decimal(-5), False)],
    ids=["it shrank below the order", "it grew"],
)
async def test_an_overfill_that_changes_while_it_is_being_closed_has_its_order_follow(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, corrected: Decimal, quantity: Decimal, canceling: bool
) -> None:
    closes = await made(engine)
    await closes.tell(1, cum_quantity=Decimal(13), exec_id="over", last_quantity=Decimal(3), **TRADED)
    (tagged,) = await the_row(engine, "SELECT id FROM positions WHERE overfill_of = 1")
    assert isinstance(tagged, int)
    monkeypatch.setitem(REQUESTS, tagged, UUID(int=99))
    await closes.accept(tagged)
    await closes.submit(tagged)
    await closes.state(tagged, BrokerStatus.NEW, cum="0")
    await closes.tell(
        1,
        exec_type=ExecType.TRADE_CORRECT,
        order_status=BrokerStatus.FILLED,
        cum_quantity=10 + corrected,
        exec_id="over-2",
        exec_ref_id="over",
        last_quantity=corrected,
        last_price=Decimal(100),
    )
    row = await the_row(
        engine,
        "SELECT p.opening_qty, p.quantity, p.status, o.status, o.cancel_requested_at IS NOT NULL FROM positions p"
        " JOIN orders o ON o.position_id = p.id WHERE p.overfill_of = 1",
    )
    assert row == (quantity, quantity, "closing", "pending_cancel" if canceling else "new", canceling)
    kinds = (
        "SELECT array_agg(i.kind ORDER BY i.kind) FROM incidents i JOIN positions p ON p.id = i.position_id"
        " WHERE p.overfill_of = 1"
    )
    expected = ["exposure_above_owed", "position_changed_outside"] if canceling else ["position_changed_outside"]
    assert await the_row(engine, kinds) == (expected,)
    assert await violations(engine) == []


async def test_a_fill_for_nothing_is_booked_corrected_and_taken_back_as_any_other(engine: AsyncEngine) -> None:
    """A worthless expiry, a cabinet trade. Position 3 is short, so it pays; minus nothing is nothing."""
    closes = await made(engine)
    await closes.fill(3, "3", cum="5", price="0")
    row = await the_row(
        engine,
        "SELECT e.price, o.avg_price, p.quantity, p.status FROM executions e JOIN orders o USING (client_order_id)"
        " JOIN positions p ON p.id = e.position_id WHERE e.exec_id = 'fill-3-1-5'",
    )
    assert row == (Decimal(0), 2 * Decimal("100.25") / 5, Decimal(0), "closed")
    payload = "SELECT payload ->> 'price', payload ->> 'cash_amount' FROM outbox_events"
    assert await the_row(engine, f"{payload} WHERE payload ->> 'exec_id' = 'fill-3-1-5'") == ("0", "0")
    said: dict[str, Any] = {"order_status": BrokerStatus.FILLED, "cum_quantity": Decimal(5)}
    corrected: dict[str, Any] = {"exec_ref_id": "fill-3-1-2", "last_quantity": Decimal(2), "last_price": Decimal(0)}
    await closes.tell(3, exec_type=ExecType.TRADE_CORRECT, exec_id="free", **corrected, **said)
    assert await the_row(engine, "SELECT avg_price FROM orders WHERE position_id = 3") == (Decimal(0),)
    said["cum_quantity"] = Decimal(2)
    await closes.tell(3, exec_type=ExecType.TRADE_CANCEL, exec_id="undone", exec_ref_id="fill-3-1-5", **said)
    assert await the_row(engine, "SELECT quantity FROM positions WHERE id = 3") == (Decimal(-3),)
    assert await violations(engine) == []
