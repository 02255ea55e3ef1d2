"""Parked records and frozen requests: what is set aside loses nothing, and goes on once it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import psycopg
import pytest

import devstack
from broker_simulator.control import Behaviour, NeverFill, Outage
from broker_simulator.process import SimulatorProcess
from closeflow.contracts import BROKER_FILL, SUBMIT_ORDER, ErrorClass
from closeflow.domain.ids import client_order_id
from closeflow.domain.retry import RetryPolicy
from closeflow.kafka import DeadLetter, KafkaConnection, Producer, open_producer
from closeflow.operating.acting import Operator
from closeflow.operating.incidents import close_incident_by_hand
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine
from fill_processor.batch_transaction import Processor
from reconciler.jobs.release_parked import ReleaseParked
from tests.pipeline.filling import ADD_ORDER, SUBMITTED, add_order, executions, fill, published
from tests.pipeline.submitting import Bench, behave, open_bench, until

if TYPE_CHECKING:
    from tests.conftest import Database

PARKED: Final = "submit_order_parked"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), {"oversell": "allow"}) as running:
        yield running


@pytest.fixture
async def bench(module_database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(module_database, simulator, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
async def running(
    module_database: Database, simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    """One submitter for many tests; it does not wait long for what it cannot see."""
    async with open_bench(module_database, simulator, tmp_path_factory.mktemp("submitter")) as made:
        settings = {"request_visible_within_s": "0.1", "http_deadline_s": "2", "lease_s": "6", "breaker_probe_s": "0.3"}
        with made.submitter(**settings):
            await until(lambda: "partitions_assigned" in made.log, "the submitter reads", within_s=90)
            yield made


@pytest.fixture
def served(running: Bench) -> Bench:
    """A bench with a submitter, and a broker that behaves."""
    behave(running.control)
    return running


@pytest.fixture(scope="module")
async def producer(stack: devstack.Stack) -> AsyncIterator[Producer]:
    async with open_producer(KafkaConnection(stack.kafka_bootstrap_servers)) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Roles:
    """The engines of those who meet here, each with what its role may do."""

    fills: Engine
    reconciler: Engine
    operator: Engine


@pytest.fixture
async def roles(module_database: Database) -> AsyncIterator[Roles]:
    names = ("closeflow_fill_processor", "closeflow_reconciler", "closeflow_operator")
    engines = [make_engine(module_database.dsn(name), pool_size=3, application_name=name) for name in names]
    yield Roles(*engines)
    for engine in engines:
        await engine.dispose()


@pytest.fixture
def processor(roles: Roles) -> Processor:
    return Processor(roles.fills, RetryPolicy(settle_delay_s=0, base_s=0))


@pytest.fixture
def job(roles: Roles, producer: Producer) -> ReleaseParked:
    return ReleaseParked(roles.reconciler, producer, budget=100)


def open_incidents(bench: Bench, subject: object) -> list[str]:
    rows = bench.query(
        "SELECT kind FROM incidents WHERE subject = %(subject)s AND closed_at IS NULL ORDER BY kind",
        subject=str(subject),
    )
    return [row["kind"] for row in rows]


async def close_incident(bench: Bench, roles: Roles, kind: str, subject: object) -> None:
    (row,) = bench.query(
        "SELECT id FROM incidents WHERE kind = %(kind)s AND subject = %(subject)s AND closed_at IS NULL",
        kind=kind,
        subject=str(subject),
    )
    await close_incident_by_hand(roles.operator, row["id"], Operator(by="ann", reason="mended"))


def parked(bench: Bench, order_id: str) -> list[tuple[str, bool]]:
    """Reason and whether it is released, of each record about an order."""
    rows = bench.query(
        "SELECT reason, released_at FROM parked_records WHERE client_order_id = %(id)s ORDER BY parked_at", id=order_id
    )
    return [(row["reason"], row["released_at"] is not None) for row in rows]


async def test_an_update_of_an_unknown_order_is_applied_once_when_the_order_is_known(
    bench: Bench, processor: Processor, job: ReleaseParked
) -> None:
    request_id = bench.add_request()
    order_id = client_order_id(request_id, 1)
    update = fill(bench, request_id)
    assert await processor.process_batch([update]) == []
    assert (parked(bench, order_id), open_incidents(bench, order_id)) == ([("unknown_order", False)], ["unknown_order"])
    assert await job.once() == 0, "the order is still unknown"

    add_order(bench, request_id)
    assert (await job.once(), await job.once()) == (1, 0)

    (again,) = await published(bench, 1)
    assert (again.key, again.raw, again.headers) == (update.key, update.raw, update.headers)
    assert (parked(bench, order_id), open_incidents(bench, order_id)) == ([("unknown_order", True)], [])
    await processor.process_batch([again])
    assert (executions(bench, request_id), bench.position(request_id)["status"]) == (1, "closed")

    # As if the job had died before it noted the release.
    bench.execute("UPDATE parked_records SET released_at = NULL WHERE client_order_id = %(id)s", id=order_id)
    assert await job.once() == 1
    await processor.process_batch(await published(bench, 1))
    assert executions(bench, request_id) == 1


async def test_somebody_elses_order_is_never_matched_by_its_symbol(
    bench: Bench, processor: Processor, job: ReleaseParked
) -> None:
    request_id = bench.add_request()
    add_order(bench, request_id)
    theirs = f"theirs-{uuid4()}"
    await processor.process_batch([fill(bench, request_id, order_id=theirs)])
    assert (await job.once(), parked(bench, theirs)) == (0, [("foreign_order", False)])
    assert executions(bench, request_id) == 0


async def test_an_update_that_the_database_refuses_waits_for_a_person_and_is_then_applied(
    bench: Bench, roles: Roles, processor: Processor, job: ReleaseParked
) -> None:
    requests = [bench.add_request() for _ in range(3)]
    for request_id in requests:
        add_order(bench, request_id)
    poison = requests[1]
    order_id = client_order_id(poison, 1)
    bench.execute(f"ALTER TABLE executions ADD CONSTRAINT poisoned CHECK (client_order_id <> '{order_id}')")
    await processor.process_batch([fill(bench, one) for one in requests])
    assert [bench.position(one)["status"] for one in requests] == ["closed", "closing", "closed"]
    assert bench.request(poison)["frozen_reason"] == "poison"
    assert open_incidents(bench, order_id) == ["poison"]
    assert await job.once() == 0, "it would be refused again"

    bench.execute("ALTER TABLE executions DROP CONSTRAINT poisoned")
    await close_incident(bench, roles, "poison", order_id)
    assert bench.request(poison)["frozen_reason"] is None
    assert await job.once() == 1
    await processor.process_batch(await published(bench, 1))
    assert (executions(bench, poison), bench.position(poison)["status"]) == (1, "closed")
    assert [released for _, released in parked(bench, order_id)] == [True]


async def test_an_update_that_meets_the_commit_of_its_order_waits_for_it(bench: Bench, processor: Processor) -> None:
    """The planner holds the position's lock until its COMMIT is done, and the order is looked for under that lock."""
    request_id = bench.add_request()
    order_id = client_order_id(request_id, 1)
    with psycopg.connect(bench.database.admin_dsn) as planner:
        planner.execute("SELECT FROM positions WHERE id = %s FOR NO KEY UPDATE", (bench.position(request_id)["id"],))
        planner.execute(ADD_ORDER.encode(), {"order": order_id, "id": request_id})
        planner.execute(SUBMITTED.encode(), {"id": request_id})
        processing = asyncio.create_task(processor.process_batch([fill(bench, request_id)]))
        waiting = (
            "SELECT FROM pg_stat_activity WHERE application_name = 'closeflow_fill_processor'"
            " AND wait_event_type = 'Lock' AND datname = current_database()"
        )
        await until(lambda: bool(bench.query(waiting)), "the fill-processor waits for the lock")
        planner.commit()
    assert await processing == []
    assert (executions(bench, request_id), parked(bench, order_id)) == (1, [])


def unreadable(key: bytes, raw: bytes) -> DeadLetter:
    return DeadLetter(
        topic=BROKER_FILL,
        partition=0,
        offset=uuid4().int >> 66,
        key=key,
        raw=raw,
        headers=(),
        reason="r",
        error_class=ErrorClass.BAD_JSON,
    )


async def test_an_unreadable_update_freezes_the_request_that_it_or_its_key_names(
    bench: Bench, roles: Roles, processor: Processor
) -> None:
    by_value, by_key, without_order, untouched = (bench.add_request() for _ in range(4))
    for request_id in (by_value, by_key, untouched):
        add_order(bench, request_id)
    named = json.dumps({"client_order_id": client_order_id(by_value, 1), "last_qty": "NaN"}).encode()
    letters = [
        unreadable(b"", named),
        unreadable(str(by_key).encode(), b"\xff"),
        unreadable(str(without_order).encode(), b"{"),
        unreadable(b"a foreign order's id", b"{"),
        unreadable(str(uuid4()).encode(), b"{"),
    ]
    await processor.freeze_unreadable(letters)

    frozen = [bench.request(one)["frozen_reason"] for one in (by_value, by_key, without_order, untouched)]
    assert frozen == ["unreadable_update"] * 3 + [None]
    for letter in letters[3:]:
        assert open_incidents(bench, f"{BROKER_FILL}/0/{letter.offset}") == ["unreadable_update"]

    for subject in (client_order_id(by_value, 1), by_key, without_order):
        await close_incident(bench, roles, "unreadable_update", subject)
    assert [bench.request(one)["frozen_reason"] for one in (by_value, by_key, without_order)] == [None] * 3


async def test_an_event_whose_request_becomes_visible_after_all_is_planned_once(
    served: Bench, job: ReleaseParked
) -> None:
    with served.adding_request() as said:
        request_id = said.close_request_id
        await served.ask(request_id)
        await served.until(lambda: open_incidents(served, request_id) == [PARKED], "it is parked")
        assert await job.once() == 0, "the request cannot be seen yet"
    assert served.request(request_id)["frozen_reason"] is None
    assert (await job.once(), await job.once()) == (1, 0)
    await served.hear(request_id)
    await served.producer.publish_many([served.message(request_id)])  # as a job that died in between would
    other = served.add_request()
    await served.ask(other)
    await served.hear(other)
    await served.until(lambda: served.sends(request_id) == ["accepted"], "the send is answered")
    assert len(served.orders(request_id)) == 1
    assert served.control.order(client_order_id(request_id, 1)).accepted == 1
    assert (parked(served, client_order_id(request_id, 1)), open_incidents(served, request_id)) == (
        [("request_not_visible", True)],
        [],
    )


async def test_an_event_that_the_database_refuses_is_planned_when_its_incident_is_closed(
    served: Bench, roles: Roles, job: ReleaseParked
) -> None:
    request_id = served.add_request()
    served.execute(f"ALTER TABLE orders ADD CONSTRAINT poisoned CHECK (close_request_id <> '{request_id}')")
    await served.ask(request_id)
    await served.until(lambda: open_incidents(served, request_id) == [PARKED], "it is parked")
    assert served.request(request_id)["frozen_reason"] == PARKED
    assert await job.once() == 0, "it is frozen"
    served.execute("ALTER TABLE orders DROP CONSTRAINT poisoned")
    await close_incident(served, roles, PARKED, request_id)
    assert await job.once() == 1
    await served.hear(request_id)
    await served.until(lambda: served.sends(request_id) == ["accepted"], "the send is answered")
    assert (len(served.orders(request_id)), served.request(request_id)["frozen_reason"]) == (1, None)


async def test_an_incident_about_a_request_that_never_was_can_be_closed(bench: Bench, roles: Roles) -> None:
    never = uuid4()
    bench.execute(
        "INSERT INTO incidents (kind, severity, close_request_id) VALUES (%(kind)s, 'critical', %(id)s)",
        kind=PARKED,
        id=never,
    )
    await close_incident(bench, roles, PARKED, never)
    assert open_incidents(bench, never) == []


async def test_an_unreadable_event_is_told_of_under_the_request_that_it_names(served: Bench) -> None:
    named, request_id = uuid4(), served.add_request()
    broken = json.dumps({"close_request_id": str(named), "quantity": "NaN"}).encode()
    for value in (broken, broken):
        await served.producer.publish(SUBMIT_ORDER, key=served.message(request_id).key, value=value)
    await served.ask(request_id)
    await served.hear(request_id)  # the partition goes on
    rows = served.query("SELECT kind, count FROM incidents WHERE subject = %(id)s AND closed_at IS NULL", id=str(named))
    assert [row["kind"] for row in rows] == ["unreadable_submit_order"]


async def test_a_frozen_request_sends_nothing_until_it_is_released(served: Bench) -> None:
    served.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1, retry_after_s=5)
    )
    request_id = served.add_request()
    await served.ask(request_id)
    await served.until(lambda: served.sends(request_id) == ["not_accepted"], "the broker did not take it")
    freeze(served, request_id, "poison")
    due: set[object] = set()

    def looked_at_again() -> bool:
        due.add(served.orders(request_id)[0]["next_send_at"])
        return len(due) > 3

    await until(looked_at_again, "it is due again and again, and put off")
    assert (served.sends(request_id), served.orders(request_id)[0]["status"]) == (["not_accepted"], "planned")
    freeze(served, request_id, None)
    await served.until(lambda: served.sends(request_id) == ["not_accepted", "accepted"], "it is sent")


async def test_a_cancel_goes_to_the_broker_though_the_request_is_frozen(served: Bench) -> None:
    served.control.script(Behaviour(execution=NeverFill()))
    request_id = served.add_request()
    await served.ask(request_id)
    await served.hear(request_id)
    served.name_at_broker(request_id)
    freeze(served, request_id, "contradicts_order")
    served.request_cancel(request_id)
    await served.until(lambda: served.sends(request_id, kind="cancel") == ["accepted"], "the cancel is answered")
    [at_broker] = served.control.order(client_order_id(request_id, 1)).orders
    assert at_broker.status == "canceled"


def freeze(bench: Bench, request_id: UUID, reason: str | None) -> None:
    bench.execute("UPDATE close_requests SET frozen_reason = %(r)s WHERE id = %(id)s", r=reason, id=request_id)
