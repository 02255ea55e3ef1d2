"""What the reconciler puts right, compares and tells: on real PostgreSQL and Kafka, with a simulated broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pytest

from broker_simulator.control import Behaviour, FillAtOnce, MarketHours, NeverFill, Outage, PositionSpec
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import ExecType, Incident
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import transaction
from closeflow.storage.incidents import RESOLVED_WHEN, report_incidents
from reconciler.jobs.assemble_evidence import AssembleEvidence
from reconciler.jobs.cancel_orphan_orders import CancelOrphanOrders
from reconciler.jobs.compare_positions import ComparePositions
from reconciler.jobs.fill_gaps import FillGaps
from reconciler.jobs.repair_positions import RepairPositions
from reconciler.jobs.resolve_incidents import ResolveIncidents
from reconciler.jobs.wake_requests import MarketHours as BrokerHours
from reconciler.jobs.wake_requests import WakeRequests
from tests.pipeline.reconciling import a_ticket, place
from tests.pipeline.submitting import Bench

if TYPE_CHECKING:
    pass

NO_TIME: Final = timedelta(0)


def open_incidents(bench: Bench) -> dict[str, int]:
    """The count of each open incident, by kind."""
    counted = "SELECT kind, sum(count)::int AS count FROM incidents WHERE closed_at IS NULL GROUP BY kind"
    return {row["kind"]: row["count"] for row in bench.query(counted)}


def make_retryable(bench: Bench, request_id: UUID) -> None:
    of_request = "UPDATE close_requests SET status = %(status)s, next_attempt_at = now() WHERE id = %(id)s"
    bench.execute(of_request, status="submitted", id=request_id)
    bench.execute(of_request, status="retryable", id=request_id)
    bench.execute("UPDATE positions SET status = 'close_retryable'")


def wake_requests(engine: Engine, broker: AlpacaBroker) -> WakeRequests:
    return WakeRequests(engine, BrokerHours(broker, 0.001), timedelta(seconds=30), timedelta(minutes=15), budget=100)


async def test_a_retry_waits_for_the_market_the_breaker_and_the_kill_switch(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    make_retryable(bench, request_id)
    job = wake_requests(engine, broker)

    opens_at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    bench.control.set_hours(MarketHours(is_open=False, next_open=opens_at))
    asked_at = datetime.now(UTC)
    assert await job.once() == 0
    assert abs(bench.request(request_id)["next_attempt_at"] - opens_at) <= datetime.now(UTC) - asked_at, "due then"

    bench.control.set_hours(MarketHours())
    bench.execute("UPDATE close_requests SET next_attempt_at = now()")
    bench.execute(
        "INSERT INTO broker_breakers (broker, account_id, state, opened_at, probe_at)"
        " SELECT broker, account_id, 'open', now(), now() + interval '1 minute' FROM accounts"
    )
    assert await job.once() == 0
    (breaker,) = bench.query("SELECT probe_at FROM broker_breakers")
    assert bench.request(request_id)["next_attempt_at"] == breaker["probe_at"]

    bench.execute("UPDATE broker_breakers SET state = 'closed'")
    bench.execute("UPDATE close_requests SET next_attempt_at = now()")
    bench.execute("UPDATE trading_controls SET state = 'halted' WHERE scope = 'global'")
    assert await job.once() == 0

    bench.execute("UPDATE trading_controls SET state = 'reducing'")
    assert await wake_requests(engine, broker).once() == 1, "closes go on while positions may only be reduced"
    request = bench.request(request_id)
    assert (request["status"], request["attempt"], request["retry_count"]) == ("pending", 2, 0)


async def test_a_broker_without_a_clock_holds_back_retries_and_nothing_else(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    waiting, late = bench.add_request(), bench.add_request()
    make_retryable(bench, waiting)
    bench.execute("UPDATE close_requests SET deadline_at = now() WHERE id = %(id)s", id=late)
    bench.control.outage(Outage(kind="server_error"))

    assert await wake_requests(engine, broker).once() == 1

    assert bench.request(waiting)["status"] == "retryable"
    assert bench.request(late)["reason"] == "deadline_passed"


async def test_a_working_order_past_its_deadline_is_asked_to_be_cancelled(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.execute("UPDATE orders SET created_at = now()")
    job = wake_requests(engine, broker)
    assert await job.once() == 0
    bench.execute("UPDATE close_requests SET deadline_at = now()")

    assert await job.once() == 1
    assert await job.once() == 0
    assert bench.orders(request_id)[0]["status"] == "pending_cancel"
    assert bench.request(request_id)["status"] == "submitted"


async def test_a_position_that_disagrees_with_its_requests_is_repaired_once(bench: Bench, engine: Engine) -> None:
    finished, lonely, good = bench.add_request(), bench.add_request(), bench.add_request()
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x' WHERE id = %(id)s", id=finished)
    bench.execute(
        "UPDATE positions SET active_close_request_id = NULL WHERE active_close_request_id = %(id)s", id=lonely
    )
    job = RepairPositions(engine, NO_TIME, budget=10)

    assert await replace(job, grace=timedelta(hours=1)).once() == 0, "what changed a moment ago is left alone"
    assert await job.once() == 2
    assert await job.once() == 0

    assert [bench.position(one)["status"] for one in (finished, lonely, good)] == ["open", "closing", "closing"]
    assert bench.position(lonely)["active_close_request_id"] == lonely
    assert open_incidents(bench) == {"repaired": 2}
    events = bench.query("SELECT event_type FROM outbox_events ORDER BY event_type")
    assert len(events) == 2


async def test_what_cannot_be_repaired_is_counted_until_it_agrees(bench: Bench, engine: Engine) -> None:
    request_id = bench.add_request()
    bench.execute("UPDATE positions SET status = 'open'")
    bench.execute("UPDATE close_requests SET status = 'submitted'")
    bench.execute("UPDATE close_requests SET status = 'retryable'")
    bench.execute("UPDATE positions SET active_close_request_id = NULL")
    job = RepairPositions(engine, NO_TIME, budget=10)

    assert [await job.once(), await job.once()] == [0, 0]
    assert open_incidents(bench) == {"not_repaired": 2}
    bench.execute("UPDATE positions SET status = 'close_retryable', active_close_request_id = %(id)s", id=request_id)
    await job.once()
    assert open_incidents(bench) == {}


async def test_an_order_that_outlives_its_request_is_cancelled_and_told_until_it_is_done(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.execute("UPDATE orders SET status = 'submit_unknown', broker_order_id = NULL")
    bench.execute("DELETE FROM order_statements")
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'submit_unknown'")
    job = CancelOrphanOrders(engine, broker, bench.producer, NO_TIME, budget=10)

    assert await job.once() == 1
    assert await job.once() == 0, "it is not asked again at once"

    (update,) = await bench.hear(request_id)
    assert update.exec_type is ExecType.ORDER_STATUS
    assert bench.orders(request_id)[0]["cancel_requested_at"] is not None
    assert open_incidents(bench) == {"order_outlives_request": 1}
    bench.execute("UPDATE orders SET status = 'canceled'")
    await job.once()
    assert open_incidents(bench) == {}


async def test_an_order_that_the_broker_does_not_know_is_not_cancelled(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    add_unknown(bench, request_id)
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'submit_unknown'")

    assert await CancelOrphanOrders(engine, broker, bench.producer, NO_TIME, budget=10).once() == 0

    assert bench.orders(request_id)[0]["cancel_requested_at"] is None
    assert open_incidents(bench) == {"order_outlives_request": 1}


def hold_at_broker(bench: Bench, **held: int) -> None:
    specs = [PositionSpec(symbol=symbol, asset_type="stock", quantity=Decimal(held[symbol])) for symbol in held]
    bench.control.set_positions(specs)


async def test_a_position_that_differs_twice_is_an_incident_until_it_agrees(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request(10)
    symbol = bench.position(request_id)["symbol"]
    job = ComparePositions(engine, broker, NO_TIME)

    hold_at_broker(bench, **{symbol: 7, "ZZZ": 3})
    assert await job.once() == 0
    assert open_incidents(bench) == {}, "once may be a moment between two messages"
    assert [await job.once(), await job.once()] == [1, 1]
    assert open_incidents(bench) == {"position_mismatch": 2, "unknown_positions": 2}

    bench.control.outage(Outage(kind="server_error"))
    assert await job.once() == 0
    assert open_incidents(bench) == {"position_mismatch": 2, "unknown_positions": 2}, "no answer is no evidence"
    bench.control.clear_outages()

    hold_at_broker(bench, **{symbol: 10})
    assert await job.once() == 0
    assert open_incidents(bench) == {}


@pytest.mark.parametrize("busy", ["live order", "gap", "changed just now"])
async def test_a_symbol_that_is_not_quiet_is_not_compared(
    busy: str, bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request(10)
    job = ComparePositions(engine, broker, NO_TIME)
    if busy == "changed just now":
        job = replace(job, grace=timedelta(hours=1))
    else:
        bench.control.script(Behaviour(execution=NeverFill()))
        await place(bench, broker, request_id)
    if busy == "gap":
        bench.execute("UPDATE orders SET status = 'filled', stated_cum_qty = 10")

    assert [await job.once(), await job.once()] == [0, 0]
    assert open_incidents(bench) == {}


def add_unknown(bench: Bench, request_id: UUID, *, sent: str = "10 minutes") -> str:
    """An order that was sent, and of which the broker never said anything."""
    order_id = client_order_id(request_id, 1)
    bench.execute("UPDATE close_requests SET status = 'submitted' WHERE id = %(id)s", id=request_id)
    bench.execute(
        "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side,"
        " quantity, order_type, time_in_force, status) SELECT %(order)s, id, 1, position_id, account_id,"
        " symbol, side, target_qty, 'limit', 'day', 'submit_unknown' FROM close_requests WHERE id = %(id)s",
        order=order_id,
        id=request_id,
    )
    bench.execute(
        "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at) VALUES"
        " (%(order)s, 'submit', 1, 's', now() - interval '9 minutes', now() - CAST(%(sent)s AS interval))",
        order=order_id,
        sent=sent,
    )
    return order_id


def add_incident(bench: Bench, kind: str, **about: Any) -> None:
    columns = {"client_order_id": None, "close_request_id": None, "subject": None, **about}
    bench.execute(
        "INSERT INTO incidents (kind, severity, client_order_id, close_request_id, detail) VALUES (%(kind)s,"
        " 'critical', %(client_order_id)s, CAST(%(close_request_id)s AS uuid),"
        " jsonb_build_object('text', 't', 'subject', CAST(%(subject)s AS text)))",
        kind=kind,
        **columns,
    )


async def test_the_evidence_of_absence_is_put_into_the_incident(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request(10)
    order_id = add_unknown(bench, request_id)
    add_incident(bench, "order_not_found", client_order_id=order_id)
    hold_at_broker(bench, **{bench.position(request_id)["symbol"]: 10})
    job = AssembleEvidence(engine, broker, bench.producer, budget=10, pages=5)

    bench.control.outage(Outage(kind="server_error"))
    assert await job.once() == 0
    assert "evidence" not in bench.query("SELECT detail FROM incidents")[0]["detail"], "no answer is no evidence"
    bench.control.clear_outages()
    assert await job.once() == 1

    detail = bench.query("SELECT detail FROM incidents")[0]["detail"]
    evidence = detail["evidence"]
    assert detail["text"] == "t"
    assert (evidence["executions_listed"], evidence["position_agrees"]) == (0, True)
    assert (evidence["position_at_broker"], evidence["position_expected"]) == ("10", "10")


async def test_evidence_against_absence_goes_to_the_fill_processor(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    request_id = bench.add_request(10)
    await place(bench, broker, request_id)
    bench.execute("UPDATE orders SET status = 'submit_unknown', broker_order_id = NULL")
    bench.execute(
        "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at) VALUES"
        " (%(order)s, 'submit', 1, 's', now(), now())",
        order=client_order_id(request_id, 1),
    )
    add_incident(bench, "order_not_found", client_order_id=client_order_id(request_id, 1))

    assert await AssembleEvidence(engine, broker, bench.producer, budget=10, pages=5).once() == 1

    (update,) = await bench.hear(request_id)
    assert update.exec_type is ExecType.TRADE
    evidence = bench.query("SELECT detail FROM incidents")[0]["detail"]["evidence"]
    assert (evidence["executions_listed"], evidence["position_agrees"]) == (1, False)


ENDS: Final = {
    "acknowledged_order_not_found": "UPDATE orders SET last_broker_update_at = now() + interval '1 second'",
    "cancel_outcome_missing": "UPDATE orders SET status = 'canceled'",
    "cancel_refused": "UPDATE orders SET status = 'filled', stated_cum_qty = 10, executed_qty = 10",
    "exposure_above_owed": "UPDATE orders SET status = 'expired'",
    "order_done_for_day": "UPDATE orders SET status = 'expired'",
    "order_not_attended": "UPDATE orders SET status = 'rejected'",
    "order_not_found": "UPDATE orders SET status = 'new'",
    "request_not_woken": "UPDATE close_requests SET updated_at = now() + interval '1 second'",
    "submit_unknown": "UPDATE orders SET status = 'canceled'",
    "target_reached_with_live_order": "UPDATE orders SET status = 'lost'",
}


@pytest.mark.parametrize("kind", sorted(ENDS))
async def test_an_incident_closes_when_what_it_tells_is_over(kind: str, bench: Bench, engine: Engine) -> None:
    request_id = bench.add_request(10)
    order_id = add_unknown(bench, request_id)
    of_request = kind in ("submit_unknown", "request_not_woken")
    add_incident(bench, kind, **{"close_request_id": request_id} if of_request else {"client_order_id": order_id})
    add_incident(bench, "record_was_wrong", client_order_id=order_id)
    job = ResolveIncidents(engine)

    assert await job.once() == 0, "it is not over"
    bench.execute(ENDS[kind])
    assert await job.once() == 1
    assert open_incidents(bench) == {"record_was_wrong": 1}, "what freezes a request is closed by a person"


@pytest.mark.parametrize("kind", ["broker_credentials_refused", "broker_refuses_orders"])
async def test_an_accounts_incident_closes_when_orders_pass_again(kind: str, bench: Bench, engine: Engine) -> None:
    add_incident(bench, kind, subject=bench.account_id)
    insert = "INSERT INTO broker_breakers (broker, account_id, state) VALUES ('alpaca', %(account)s, 'open')"
    bench.execute(insert, account=bench.account_id)
    assert await ResolveIncidents(engine).once() == 0
    bench.execute("UPDATE broker_breakers SET state = 'closed'")
    assert await ResolveIncidents(engine).once() == 1


def test_every_kind_that_resolves_is_shown_to() -> None:
    elsewhere = {"broker_credentials_refused", "broker_refuses_orders", "execution_withheld", "unknown_value"}
    assert {*ENDS, *elsewhere} == set(RESOLVED_WHEN)


async def test_an_order_that_ended_with_a_gap_keeps_its_incident(bench: Bench, engine: Engine) -> None:
    request_id = bench.add_request(10)
    add_unknown(bench, request_id)
    add_incident(bench, "submit_unknown", close_request_id=request_id)
    bench.execute("UPDATE orders SET status = 'canceled', stated_cum_qty = 4")
    assert await ResolveIncidents(engine).once() == 0


async def test_reporting_an_incident_again_keeps_what_was_added_to_it(bench: Bench, engine: Engine) -> None:
    add_incident(bench, "x")
    bench.execute("UPDATE incidents SET detail = detail || '{\"evidence\": 1}'")
    async with transaction(engine) as tx:
        await report_incidents(tx, incidents=[Incident(kind="x", severity="critical", detail="newer")])
    (row,) = bench.query("SELECT count, detail FROM incidents")
    assert row["count"] == 2
    assert (row["detail"]["text"], row["detail"]["evidence"]) == ("newer", 1)


async def test_a_list_of_executions_that_is_too_long_for_one_cycle_is_read_on(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    """The one that is wanted is behind a page of others; a cycle reads one page."""
    bench.control.script(Behaviour(execution=FillAtOnce()))
    for number in range(100):
        await broker.submit(a_ticket(bench, f"other-{number}"))
    request_id = bench.add_request(10)
    await place(bench, broker, request_id)
    bench.execute("UPDATE orders SET stated_cum_qty = 10")
    job = FillGaps(engine, broker, bench.producer, NO_TIME, timedelta(hours=1), budget=10, pages=1)

    assert [await job.once(), await job.once()] == [0, 1]
    (update,) = await bench.hear(request_id)
    assert update.exec_type is ExecType.TRADE
