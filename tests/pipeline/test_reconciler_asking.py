"""How often the reconciler's jobs ask a broker, and that what fails alone holds up nothing behind it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pytest

from broker_simulator.control import Behaviour, NeverFill
from closeflow.broker import BrokerUnavailable, ExecutionPage
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import BrokerUpdate
from closeflow.domain.sending.broker_answers import LookUpAnswer, NotAccepted, Unanswered
from closeflow.kafka import Producer
from closeflow.kafka.producer import Acknowledged
from closeflow.storage.core.engine import Database as Engine
from reconciler.jobs.ask_quiet_orders import AskQuietOrders, Pauses, Rest, acknowledged
from reconciler.jobs.assemble_evidence import AssembleEvidence
from reconciler.jobs.cancel_orphan_orders import CancelOrphanOrders
from reconciler.jobs.fill_gaps import FAILURES_OF_A_PAGE, FillGaps
from reconciler.jobs.repair_positions import RepairPositions
from reconciler.jobs.wake_requests import MarketHours, WakeRequests
from tests.pipeline.reconciling import place
from tests.pipeline.submitting import Bench

if TYPE_CHECKING:
    pass

NO_TIME: Final = timedelta(0)
HOUR: Final = timedelta(hours=1)


@dataclass
class Asked(AlpacaBroker):
    """A broker of one account that lists no execution, or fails to; it remembers what it was asked."""

    of: AlpacaBroker
    pages: list[str | None] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    next_page: str | None = None
    trouble: BrokerUnavailable | None = None
    answer: LookUpAnswer = field(default_factory=lambda: Unanswered("nothing"))

    @property
    def account_id(self) -> str:
        return self.of.account_id

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        self.pages.append(page)
        if self.trouble is not None and page == self.next_page:
            raise self.trouble
        return ExecutionPage(updates=(), next_page=None if page == self.next_page else self.next_page)

    async def submitted_at(self, client_order_id: str) -> datetime | None:
        return None

    async def newest_orders(self) -> tuple[BrokerUpdate, ...]:
        return ()

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        self.looked_up.append(client_order_id)
        return self.answer


async def working(bench: Bench, broker: AlpacaBroker, *, count: int = 1) -> list[UUID]:
    """Orders that the broker has and of which nothing was heard for a minute."""
    requests = [bench.add_request() for _ in range(count)]
    for request_id in requests:
        bench.control.script(Behaviour(execution=NeverFill()))
        await place(bench, broker, request_id)
    return requests


def fill_gaps(bench: Bench, engine: Engine, asked: Asked, pauses: Pauses, rest: Rest | None = None) -> FillGaps:
    return FillGaps(engine, asked, bench.producer, NO_TIME, HOUR, 10, 5, pauses, rest or Rest())


async def test_a_gap_that_waits_for_a_person_is_asked_about_ever_more_rarely(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    first, second = await working(bench, broker, count=2)
    bench.execute("UPDATE orders SET stated_cum_qty = 4 WHERE close_request_id = %(id)s", id=first)
    asked = Asked(broker)
    job = fill_gaps(bench, engine, asked, Pauses(first_s=0.4, cap_s=60))

    began = time.monotonic()
    while len(asked.pages) < 4:
        await job.once()
        assert time.monotonic() - began < 30
    assert time.monotonic() - began >= 0.4 + 0.8 + 1.6

    for one in (second, first):
        bench.execute("UPDATE orders SET stated_cum_qty = 5 WHERE close_request_id = %(id)s", id=one)
        before = len(asked.pages)
        await job.once()
        assert len(asked.pages) == before + 1, "a gap that opens or changes is asked about at once"


async def test_updates_that_do_not_close_a_gap_do_not_put_off_telling_of_it(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    await working(bench, broker)
    job = FillGaps(engine, Asked(broker), bench.producer, NO_TIME, timedelta(seconds=1), 10, 5)
    deadline = time.monotonic() + 20
    while not bench.query("SELECT FROM incidents"):
        assert time.monotonic() < deadline
        bench.execute("UPDATE orders SET stated_cum_qty = 4, last_broker_update_at = closeflow_now()")
        await job.once()


async def test_gaps_that_wait_for_a_person_leave_room_for_a_new_one(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    waiting, _ = await working(bench, broker, count=2)
    bench.execute("UPDATE orders SET stated_cum_qty = 4 WHERE close_request_id = %(id)s", id=waiting)
    asked = Asked(broker)
    job = replace(fill_gaps(bench, engine, asked, Pauses()), budget=1)
    await job.once()
    bench.execute("UPDATE orders SET stated_cum_qty = 4, last_broker_update_at = now() WHERE stated_cum_qty = 0")
    await job.once()
    assert len(asked.pages) == 2, "the second was asked about although the first is older"


async def test_what_has_to_end_is_woken_before_what_has_to_be_tried_again(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    older, late, given_up = [bench.add_request() for _ in range(3)]
    bench.execute("UPDATE close_requests SET created_at = now() - interval '1 hour' WHERE id = %(id)s", id=older)
    bench.execute("UPDATE close_requests SET deadline_at = now() WHERE id = %(id)s", id=late)
    bench.execute("UPDATE close_requests SET cancel_requested_at = now() WHERE id = %(id)s", id=given_up)
    job = WakeRequests(engine, MarketHours(broker, 1), HOUR / 2, HOUR, budget=2)
    assert await job.once() == 2
    assert [bench.request(one)["status"] for one in (older, late, given_up)] == ["pending", "failed", "failed"]


async def test_a_page_that_fails_again_and_again_is_left_for_the_start_of_the_list(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    await working(bench, broker)
    bench.execute("UPDATE orders SET stated_cum_qty = 4")
    asked = Asked(broker, next_page="second", trouble=BrokerUnavailable("HTTP 422: no such token"))
    job = fill_gaps(bench, engine, asked, Pauses(first_s=0.01, cap_s=0.01))
    for _ in range(FAILURES_OF_A_PAGE):
        await job.once()
    assert asked.pages == [None, *["second"] * FAILURES_OF_A_PAGE]

    deadline = time.monotonic() + 10
    while asked.pages.count(None) < 2:
        assert time.monotonic() < deadline
        await job.once()
    assert asked.pages[-2:] == [None, "second"]


async def test_a_broker_that_asks_for_a_pause_is_asked_by_no_job_until_it_is_over(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    outliving, quiet = await working(bench, broker, count=2)
    bench.execute("UPDATE orders SET stated_cum_qty = 4 WHERE close_request_id = %(id)s", id=quiet)
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x' WHERE id = %(id)s", id=outliving)
    asked = Asked(broker, answer=NotAccepted("rate limited", 60.0))
    rest = Rest()
    quiet_job = AskQuietOrders(engine, asked, bench.producer, NO_TIME, 10, Pauses(), rest)
    outliving_job = CancelOrphanOrders(engine, asked, bench.producer, NO_TIME, 10, Pauses(), rest)
    gaps_job = fill_gaps(bench, engine, asked, Pauses(), rest)

    await quiet_job.once()
    assert len(asked.looked_up) == 1
    for job in (quiet_job, outliving_job, gaps_job):
        await job.once()
    assert (len(asked.looked_up), asked.pages) == (1, [])
    assert bench.orders(outliving)[0]["cancel_requested_at"] is not None, "what needs no question goes on"


async def test_a_list_of_executions_behind_a_rate_limit_is_left_alone_until_it_is_over(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    await working(bench, broker)
    bench.execute("UPDATE orders SET stated_cum_qty = 4")
    asked = Asked(broker, trouble=BrokerUnavailable("HTTP 429", retry_after_s=60.0))
    job = fill_gaps(bench, engine, asked, Pauses(first_s=0.01, cap_s=0.01))
    for _ in range(3):
        await job.once()
    assert asked.pages == [None]


class Unreachable(Producer):
    """Kafka that acknowledges nothing."""

    def __init__(self) -> None:
        pass

    async def publish_many(self, records: object) -> list[Acknowledged]:
        raise TimeoutError


class Silent(Unreachable):
    """Kafka that never says anything."""

    async def publish_many(self, records: object) -> list[Acknowledged]:
        await asyncio.Event().wait()
        return []


async def test_a_kafka_that_says_nothing_is_not_waited_for_for_ever() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await acknowledged(Silent(), [], within_s=0.05)


async def test_an_outliving_order_is_cancelled_although_kafka_is_away(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    (request_id,) = await working(bench, broker)
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x'")
    with pytest.raises(TimeoutError):
        await CancelOrphanOrders(engine, broker, Unreachable(), NO_TIME, 10).once()
    assert bench.orders(request_id)[0]["cancel_requested_at"] is not None


async def test_an_outliving_order_that_cannot_be_ended_holds_up_no_other(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    poison, good = await working(bench, broker, count=2)
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x'")
    bench.execute(
        f"ALTER TABLE orders ADD CONSTRAINT poisoned CHECK (close_request_id <> '{poison}' OR status = 'new')"
    )
    assert await CancelOrphanOrders(engine, broker, bench.producer, NO_TIME, 10).once() == 1
    assert bench.orders(good)[0]["cancel_requested_at"] is not None
    assert bench.orders(poison)[0]["cancel_requested_at"] is None
    told = bench.query("SELECT detail FROM incidents WHERE close_request_id = %(id)s", id=poison)
    assert ["poisoned" in one["detail"]["text"] for one in told] == [True]


async def test_a_position_that_cannot_be_repaired_holds_up_no_other(bench: Bench, engine: Engine) -> None:
    poison, good = bench.add_request(), bench.add_request()
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x'")
    bad = bench.position(poison)["id"]
    bench.execute(f"ALTER TABLE positions ADD CONSTRAINT poisoned CHECK (id <> {bad} OR status = 'closing')")

    assert await RepairPositions(engine, NO_TIME, budget=10).once() == 1

    assert [bench.position(one)["status"] for one in (poison, good)] == ["closing", "open"]
    (told,) = bench.query("SELECT kind, detail FROM incidents WHERE position_id = %(id)s", id=bad)
    assert (told["kind"], "poisoned" in told["detail"]["text"]) == ("not_repaired", True)


async def test_positions_that_cannot_be_repaired_take_turns_with_the_others(bench: Bench, engine: Engine) -> None:
    poison, good = bench.add_request(), bench.add_request()
    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x'")
    bad = bench.position(poison)["id"]
    bench.execute(f"ALTER TABLE positions ADD CONSTRAINT poisoned CHECK (id <> {bad} OR status = 'closing')")
    job = RepairPositions(engine, NO_TIME, budget=1)
    assert [await job.once() for _ in range(3)] == [0, 1, 0]
    assert bench.position(good)["status"] == "open"


async def test_evidence_is_assembled_for_every_absent_order_in_turn(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    """One that was never sent has no turn: there is nothing to look for."""
    unsent, *sent = await working(bench, broker, count=3)
    bench.execute("UPDATE orders SET status = 'submit_unknown', broker_order_id = NULL")
    for request_id in (unsent, *sent):
        bench.execute(
            "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at, answer, answered_at)"
            " VALUES (%(order)s, 'submit', 1, 's', now(), now(), %(answer)s, now())",
            order=client_order_id(request_id, 1),
            answer="not_sent" if request_id == unsent else "unknown",
        )
        bench.execute(
            "INSERT INTO incidents (kind, severity, client_order_id) VALUES ('order_not_found', 'critical', %(order)s)",
            order=client_order_id(request_id, 1),
        )
    job = AssembleEvidence(engine, broker, bench.producer, budget=1, pages=5)
    assert [await job.once(), await job.once()] == [1, 1]
    assert len(bench.query("SELECT FROM incidents WHERE detail ? 'evidence'")) == 2
