"""The reconciler's look at what stands still, on real servers and a clock that is set by hand."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.broker.alpaca import AlpacaBroker
from closeflow.contracts import SUBMIT_ORDER
from closeflow.domain.incidents import IncidentKind, about
from closeflow.kafka import KafkaConnection
from closeflow.kafka.read_to_end import partitions_of
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import DatabaseError, make_engine, retrying
from closeflow.storage.incidents import report_incidents
from reconciler.jobs.watch_surroundings import WatchSurroundings
from tests.pipeline.submitting import Bench

if TYPE_CHECKING:
    pass

PATIENCE_S: Final = 30.0


class Watching:
    """The job on a clock of its own, and the incidents that it has opened."""

    def __init__(self, bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
        self.now = 1000.0
        self.bench = bench
        self.kafka = KafkaConnection(bench.database.stack.kafka_bootstrap_servers)
        self.job = WatchSurroundings(
            database=engine,
            broker=broker,
            kafka=self.kafka,
            groups={bench.group: SUBMIT_ORDER},
            patience_s=PATIENCE_S,
            clock=lambda: self.now,
        )

    async def look(self, after_s: float = 0) -> dict[str, str]:
        """The open incidents after a look, by kind."""
        self.now += after_s
        await self.job.once()
        rows = self.bench.query("SELECT kind, detail->>'text' AS detail FROM incidents WHERE closed_at IS NULL")
        return {row["kind"]: row["detail"] for row in rows}

    async def commit_to_the_end(self, beyond: int = 0) -> None:
        consumer = AIOKafkaConsumer(**self.kafka.options(), group_id=self.bench.group, enable_auto_commit=False)
        await consumer.start()
        try:
            numbers = await partitions_of(consumer, SUBMIT_ORDER)
            partitions = [TopicPartition(SUBMIT_ORDER, number) for number in numbers]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.commit({tp: end + beyond for tp, end in ends.items()})
        finally:
            await consumer.stop()


def _nobody_listens() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def test_a_group_that_does_not_consume_what_waits_is_an_incident_until_it_does(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    watching = Watching(bench, engine, broker)
    await watching.commit_to_the_end()
    assert await watching.look() == {}
    await bench.ask(bench.add_request())
    assert await watching.look(10) == {}
    assert await watching.look(PATIENCE_S - 1) == {}
    found = await watching.look(1)
    assert set(found) == {"consumer_stalled"}
    assert found["consumer_stalled"].startswith(f"1 records of submit-order wait for {bench.group}")
    assert set(await Watching(bench, engine, broker).look()) == {"consumer_stalled"}  # Another replica, just started.
    await watching.commit_to_the_end()
    assert await watching.look(10) == {}


async def test_a_group_that_has_read_beyond_the_end_of_the_log_is_an_incident_for_a_person(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    watching = Watching(bench, engine, broker)
    await watching.commit_to_the_end(beyond=5)
    found = await watching.look()
    assert set(found) == {"log_tail_lost"}
    assert found["log_tail_lost"].startswith("the newest records of submit-order are lost: partition 0 was read up to ")
    await watching.commit_to_the_end()
    assert set(await watching.look(10)) == {"log_tail_lost"}


async def test_servers_that_give_no_answer_are_incidents_until_they_do(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    watching = Watching(bench, engine, broker)
    await watching.commit_to_the_end()
    place = _nobody_listens()
    gone = AlpacaBroker(
        base_url=f"http://{place}",
        market_data_url=f"http://{place}",
        key_id="k",
        secret_key="s",
        account_id=bench.account_id,
    )
    watching.job.broker, watching.job.kafka = gone, KafkaConnection(place)
    assert await watching.look() == {}
    found = await watching.look(PATIENCE_S)
    assert set(found) == {"broker_away", "kafka_away"}
    assert "has given no answer for 30 s" in found["kafka_away"]
    watching.job.broker, watching.job.kafka = broker, watching.kafka
    assert await watching.look(10) == {}
    await gone.aclose()


async def test_a_broker_that_answers_closes_no_incident_of_another_account(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    watching = Watching(bench, engine, broker)
    await watching.commit_to_the_end()
    subjects = ("elsewhere", bench.account_id, "broker")  # The last is what a release before this one wrote.
    reported = [about(IncidentKind.BROKER_AWAY, "no answer", subject=one) for one in subjects]
    await retrying(engine, partial(report_incidents, incidents=reported))
    await watching.look()
    open_ones = bench.query("SELECT subject FROM incidents WHERE closed_at IS NULL")
    assert [row["subject"] for row in open_ones] == ["elsewhere"]


async def test_that_the_database_was_away_is_written_once_it_is_back(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    watching = Watching(bench, engine, broker)
    await watching.commit_to_the_end()
    gone = make_engine(f"postgresql://nobody@{_nobody_listens()}/none", pool_size=1, application_name="test")
    watching.job.database = gone
    for _ in range(4):
        with pytest.raises(DatabaseError):
            await watching.look(10)
    watching.job.database = engine
    found = await watching.look(5)
    assert set(found) == {"database_away"}
    assert "has given no answer for 35 s" in found["database_away"]
    assert await watching.look(10) == {}
    await gone.dispose()
