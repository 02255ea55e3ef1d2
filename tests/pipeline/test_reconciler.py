"""Each job of the reconciler, one cycle at a time, on real PostgreSQL and Kafka with a simulated broker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest

from broker_simulator.control import Behaviour, FillAtOnce, NeverFill
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import ExecType, UpdateSource
from closeflow.storage.advisory_locks import try_advisory_lock
from closeflow.storage.core.engine import Database as Engine
from reconciler.jobs.ask_quiet_orders import AskQuietOrders, Pauses
from reconciler.jobs.fill_gaps import FillGaps
from reconciler.jobs.resolve_incidents import ResolveIncidents
from reconciler.jobs.wake_requests import MarketHours, WakeRequests
from tests.pipeline.reconciling import place
from tests.pipeline.submitting import Bench

if TYPE_CHECKING:
    pass

NO_TIME: Final = timedelta(0)
RESEND: Final = timedelta(seconds=30)


def incidents(bench: Bench) -> set[str]:
    return {row["kind"] for row in bench.query("SELECT kind FROM incidents")}


def wake_requests(engine: Engine, broker: AlpacaBroker) -> WakeRequests:
    return WakeRequests(engine, MarketHours(broker, reuse_s=1), RESEND, timedelta(minutes=15), budget=100)


async def test_a_due_retry_is_asked_for_again_and_only_once(bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
    request_id = bench.add_request()
    bench.execute("UPDATE close_requests SET status = 'submitted' WHERE id = %(id)s", id=request_id)
    bench.execute(
        "UPDATE close_requests SET status = 'retryable', next_attempt_at = now() WHERE id = %(id)s", id=request_id
    )
    bench.execute("UPDATE positions SET status = 'close_retryable'")

    both = await asyncio.gather(wake_requests(engine, broker).once(), wake_requests(engine, broker).once())

    assert sorted(both) == [0, 1]
    request = bench.request(request_id)
    assert (request["status"], request["attempt"]) == ("pending", 2)
    events = bench.query("SELECT event_type, attempt, emission FROM outbox_events ORDER BY event_type")
    assert [tuple(row.values()) for row in events] == [("POSITION_CLOSING", 2, 1), ("SUBMIT_CLOSE_ORDER", 2, 1)]


async def test_a_request_that_cannot_be_woken_holds_up_no_other(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    poison, good = bench.add_request(), bench.add_request()
    bench.execute("UPDATE close_requests SET created_at = created_at - interval '31 seconds'")
    bench.execute(f"ALTER TABLE close_requests ADD CONSTRAINT poisoned CHECK (id <> '{poison}' OR emission = 1)")
    job = wake_requests(engine, broker)

    assert await job.once() == 1
    assert (bench.request(good)["emission"], bench.request(poison)["emission"]) == (2, 1)
    assert bench.incidents(poison) == {"request_not_woken"}
    assert await job.once() == 0, "it is passed over for a while"

    assert await ResolveIncidents(engine).once() == 0, "it did not move"
    bench.execute("ALTER TABLE close_requests DROP CONSTRAINT poisoned")
    assert await wake_requests(engine, broker).once() == 1
    assert bench.request(poison)["emission"] == 2
    assert await ResolveIncidents(engine).once() == 1
    assert bench.incidents(poison) == set()


async def test_a_zombie_is_emitted_again_under_the_same_event_id(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    jobs = wake_requests(engine, broker)

    assert await jobs.once() == 0, "a young request is not a zombie"
    bench.execute("UPDATE close_requests SET created_at = now() - interval '31 seconds'")
    assert await jobs.once() == 1
    assert await jobs.once() == 0, "the next emission is due later"
    bench.execute("UPDATE close_requests SET next_attempt_at = now()")
    assert await jobs.once() == 1

    events = bench.query("SELECT id, emission FROM outbox_events ORDER BY emission")
    assert [row["emission"] for row in events] == [2, 3]
    assert len({row["id"] for row in events}) == 1
    assert bench.request(request_id)["attempt"] == 1


async def test_an_order_unknown_for_too_long_fails_its_request(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    bench.execute("UPDATE close_requests SET status = 'submitted' WHERE id = %(id)s", id=request_id)
    order_id = client_order_id(request_id, 1)
    bench.execute(
        "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side,"
        " quantity, order_type, time_in_force, status, created_at) SELECT %(order)s, id, 1, position_id, account_id,"
        " symbol, side, target_qty, 'limit', 'day', 'submit_unknown', now() - interval '16 minutes'"
        " FROM close_requests WHERE id = %(id)s",
        order=order_id,
        id=request_id,
    )
    bench.execute(
        "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at) VALUES"
        " (%(order)s, 'submit', 1, 's', now() - interval '15 minutes', now() - interval '16 minutes')",
        order=order_id,
    )

    assert await wake_requests(engine, broker).once() == 1

    assert bench.request(request_id)["reason"] == "submit_unknown"
    (position,) = bench.query("SELECT status, exposure_unproven FROM positions")
    assert tuple(position.values()) == ("close_failed", True)
    assert incidents(bench) == {"submit_unknown"}


async def test_an_order_that_works_for_too_long_is_asked_to_be_cancelled_once(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    job = wake_requests(engine, broker)
    bench.execute("UPDATE orders SET created_at = now() - interval '30 seconds'")
    assert await job.once() == 0
    bench.execute("UPDATE orders SET created_at = now() - interval '60 seconds'")
    bench.execute(
        "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at, answered_at, answer)"
        " VALUES (%(order)s, 'submit', 1, 's', now(), now() - interval '30 seconds', now(), 'accepted'),"
        " (%(order)s, 'submit', 2, 's', now(), now(), now(), 'not_sent')",
        order=client_order_id(request_id, 1),
    )
    assert await job.once() == 0, "it waited for half a minute before it was sent"
    bench.execute("UPDATE order_sends SET started_at = started_at - interval '30 seconds' WHERE n = 1")

    assert await job.once() == 1
    assert await job.once() == 0
    (order,) = bench.orders(request_id)
    assert order["status"] == "pending_cancel"
    assert order["cancel_requested_at"] is not None
    assert bench.request(request_id)["status"] == "submitted"


@pytest.mark.parametrize(
    ("status", "after", "told"),
    [
        ("suspended", "60 seconds", set()),
        ("pending_cancel", "60 seconds", set()),
        ("done_for_day", "24 hours", {"order_done_for_day"}),
    ],
)
async def test_an_order_that_the_broker_holds_back_is_asked_to_be_cancelled(
    status: str, after: str, told: set[str], bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    job = wake_requests(engine, broker)
    bench.execute(
        "INSERT INTO order_statements (client_order_id, kind, stated_at, source, cum_qty)"
        " VALUES (%(order)s, %(status)s, now(), 'stream', 0)",
        order=client_order_id(request_id, 1),
        status=status,
    )
    bench.execute("DELETE FROM order_statements WHERE kind <> %(status)s", status=status)
    set_age = "UPDATE orders SET status = %(status)s, created_at = now() - CAST(%(age)s AS interval)"
    bench.execute(set_age + " + interval '30 seconds'", status=status, age=after)
    assert await job.once() == 0
    bench.execute(set_age, status=status, age=after)

    assert await job.once() == 1
    assert await job.once() == 0
    (order,) = bench.orders(request_id)
    assert (order["status"], order["cancel_requested_at"] is not None) == ("pending_cancel", True)
    assert incidents(bench) == told


async def test_the_broker_is_asked_about_a_quiet_order(bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    job = AskQuietOrders(engine, broker, bench.producer, timedelta(seconds=10), budget=10)

    assert await job.once() == 1
    assert await job.once() == 0, "it is not asked again at once"

    (update,) = await bench.hear(request_id)
    assert (update.exec_type, update.source) == (ExecType.ORDER_STATUS, UpdateSource.QUERY)
    assert update.broker_order_id is not None


async def test_an_acknowledged_order_that_the_broker_denies_is_an_incident(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.control.reset()
    job = AskQuietOrders(engine, broker, bench.producer, timedelta(seconds=10), budget=10)

    assert await job.once() == 0

    assert incidents(bench) == {"acknowledged_order_not_found"}
    assert bench.orders(request_id)[0]["status"] == "new", "an absence proves nothing here"


async def test_a_gap_is_filled_from_the_brokers_executions(bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    job = FillGaps(engine, broker, bench.producer, NO_TIME, timedelta(seconds=30), budget=10, pages=50)
    assert await job.once() == 0, "no gap is known yet"
    bench.execute("UPDATE orders SET stated_cum_qty = 10")

    assert await job.once() == 1

    (update,) = await bench.hear(request_id)
    assert (update.exec_type, update.last_qty, update.cum_qty) == (ExecType.TRADE, Decimal(10), Decimal(10))
    assert incidents(bench) == {"gap"}, "it is older than half a minute"
    bench.execute("UPDATE orders SET executed_qty = 10")
    await job.once()
    assert bench.query("SELECT FROM incidents WHERE closed_at IS NULL") == []


async def test_a_gap_of_an_order_that_was_made_by_a_clock_ahead_is_filled(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    """By the broker's clock it was filled an hour before ours says that it was made, and heard of by one ahead too."""
    bench.control.script(Behaviour(execution=FillAtOnce()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.execute("""
        UPDATE orders SET stated_cum_qty = 10, created_at = now() + interval '1 hour',
                          last_broker_update_at = now() + interval '1 hour'
    """)
    pauses = Pauses(first_s=0.01, cap_s=0.01)
    job = FillGaps(engine, broker, bench.producer, timedelta(seconds=1), timedelta(seconds=30), 10, 50, pauses)

    assert await job.once() == 0
    await asyncio.sleep(0.05)
    assert await job.once() == 1

    (update,) = await bench.hear(request_id)
    assert (update.exec_type, update.last_qty) == (ExecType.TRADE, Decimal(10))


async def test_where_positions_differ_what_the_broker_took_back_is_looked_for(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    (seen,) = bench.control.order(client_order_id(request_id, 1)).orders
    bench.control.bust(seen.executions[0].execution_id)
    job = FillGaps(engine, broker, bench.producer, NO_TIME, timedelta(seconds=30), budget=10, pages=50)
    assert await job.once() == 0, "no order has a gap"

    bench.execute(
        "INSERT INTO incidents (kind, severity, detail) SELECT 'position_mismatch', 'critical',"
        " jsonb_build_object('subject', account_id || '/' || symbol) FROM positions"
    )
    assert await job.once() == 2
    told = await bench.hear(request_id)
    assert [one.exec_type for one in told] == [ExecType.TRADE, ExecType.TRADE_CANCEL]
    assert await job.once() == 0, "it is asked again after a pause only"


async def test_a_trade_that_stays_withheld_is_an_incident_until_it_has_a_name(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.execute(
        "INSERT INTO withheld_executions (broker, account_id, exec_id, client_order_id, side, quantity, price,"
        " occurred_at, source) SELECT 'alpaca', account_id, 'a-1', client_order_id, side, 3, 10, now(), 'backfill'"
        " FROM orders"
    )
    job = FillGaps(engine, broker, bench.producer, NO_TIME, NO_TIME, budget=10, pages=50)
    await job.once()
    await ResolveIncidents(engine).once()
    assert [one["kind"] for one in bench.query("SELECT kind FROM incidents WHERE closed_at IS NULL")] == [
        "execution_withheld"
    ]

    bench.execute(
        "INSERT INTO executions (broker, account_id, exec_id, client_order_id, position_id, kind, side, quantity,"
        " price, occurred_at, source) SELECT 'alpaca', account_id, 'a-1', client_order_id, position_id, 'trade', side,"
        " 3, 10, now(), 'backfill' FROM orders"
    )
    await ResolveIncidents(engine).once()
    assert bench.query("SELECT FROM incidents WHERE closed_at IS NULL") == []


async def test_the_brokers_list_is_read_for_a_trade_that_stays_withheld(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.execute(
        "INSERT INTO withheld_executions (broker, account_id, exec_id, client_order_id, side, quantity, price,"
        " occurred_at, source) SELECT 'alpaca', account_id, 's-1', client_order_id, side, 3, 10, now(), 'stream'"
        " FROM orders"
    )
    job = FillGaps(engine, broker, bench.producer, NO_TIME, NO_TIME, budget=10, pages=50)
    assert await job.once() == 1
    assert [one.exec_type for one in await bench.hear(request_id)] == [ExecType.TRADE]
    assert await job.once() == 0, "it is asked again after a pause only"
    bench.execute(
        "INSERT INTO order_statements (client_order_id, kind, cum_qty, stated_at, source)"
        " SELECT client_order_id, 'canceled', 0, now(), 'operator' FROM orders"
    )
    await ResolveIncidents(engine).once()
    await job.once()
    assert bench.query("SELECT FROM incidents WHERE closed_at IS NULL") == [], "an operator ended the order"


async def test_a_gap_incident_stays_open_while_its_order_has_the_gap(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    first, second = bench.add_request(), bench.add_request()
    for request_id in (first, second):
        bench.control.script(Behaviour(execution=NeverFill()))
        await place(bench, broker, request_id)
    bench.execute("UPDATE orders SET stated_cum_qty = 10")
    job = FillGaps(engine, broker, bench.producer, NO_TIME, NO_TIME, budget=10, pages=50)
    await job.once()
    assert len(bench.query("SELECT FROM incidents WHERE closed_at IS NULL")) == 2

    await replace(job, budget=1).once()
    await replace(job, grace=timedelta(hours=1)).once()
    assert bench.query("SELECT FROM incidents WHERE closed_at IS NOT NULL") == [], "none of the gaps was filled"


async def test_of_two_reconcilers_one_does_a_job(engine: Engine) -> None:
    async with (
        try_advisory_lock(engine, "a job") as first,
        try_advisory_lock(engine, "a job") as second,
        try_advisory_lock(engine, "another job") as other,
    ):
        assert (first, second, other) == (True, False, True)
    async with try_advisory_lock(engine, "a job") as again:
        assert again
