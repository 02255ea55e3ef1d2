"""Dead letters when something goes wrong on the way: nothing is lost, and what is repeated does no harm."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.contracts import dead_letter_topic
from closeflow.kafka import TopicSpec
from closeflow.kafka.dlq_reader import OPERATOR_GROUP
from closeflow.kafka.topics import remove_topics
from closeflow.storage.advisory_locks import try_advisory_lock
from closeflow.storage.core.engine import make_engine
from tests.closectl.offices import Office
from tests.closectl.running import answer, closectl

LETTERS = [f"letter {number}".encode() for number in range(1000)]


def recorded(office: Office) -> int:
    """How many letters the operators' record has as handled."""
    with psycopg.connect(office.database.admin_dsn) as db:
        where = (dead_letter_topic(office.topic),)
        row = db.execute("SELECT count(*) FROM dead_letter_actions WHERE topic = %s", where).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def halted_at(office: Office, number: int) -> Iterator[None]:
    """Nothing can record this letter meanwhile, because somebody is about to."""
    letter = answer("dlq", "list", "--topic", office.topic, "--limit", str(number), **office.at)[-1]
    with psycopg.connect(office.database.admin_dsn) as db:
        db.execute(
            "INSERT INTO dead_letter_actions VALUES (%(topic)s, 0, %(offset)s, %(appended_at)s, 'replayed', 'b', 'r')",
            {**letter, "topic": dead_letter_topic(office.topic)},
        )
        yield
        db.rollback()


def started(office: Office, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOSECTL_")}
    environment |= {f"CLOSECTL_{name.upper()}": value for name, value in office.at.items()}
    command = [sys.executable, "-m", "closectl", "dlq", *arguments, "--topic", office.topic, "--reason", "mended"]
    # A shell that started the tests in its background had SIGINT ignored, which a child inherits.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_a_dry_run_changes_nothing(office: Office, verb: str) -> None:
    office.put([b"one", b"two"])
    office.put([b"loops"], headers=(("dlq_replays", b"3"),))
    before = office.listed()
    for which in (["--all"], ["0:0", "0:2"]):
        dry = office.run(verb, *which, "--dry-run")
        assert f"{office.topic}.dlq 0:0 would be {verb.removesuffix('e')}ed" in dry.stdout
        assert dry.exit_code == (1 if verb == "replay" else 0), "what would be refused is told"
    assert (office.listed(), office.came_back(), office.committed(), recorded(office)) == (before, [], None, 0)
    subject = ["actions", "list", "--subject", f"{office.topic}.dlq/0/0"]
    assert answer(*subject, **office.at) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_replay_that_is_ended_half_way_is_finished_by_the_next(office: Office, how: signal.Signals) -> None:
    office.put(LETTERS)
    with halted_at(office, 500):
        running = started(office, "replay", "--all")
        deadline = time.monotonic() + 60
        while not recorded(office):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(how)
    _, told = running.communicate(timeout=60)
    assert b"Traceback" not in told
    handled = recorded(office)
    assert 0 < handled < len(LETTERS), "it was ended too late to show anything"
    assert len(office.waiting()) == min(100, len(LETTERS) - handled), "a list shows the first hundred"

    again = office.run("replay", "--all")

    assert (again.exit_code, len(again.stdout.splitlines())) == (0, len(LETTERS) - handled)
    back = [one.value for one in office.came_back()]
    assert list(dict.fromkeys(back)) == LETTERS, "each of them, in their order"
    repeated = [value for value, times in Counter(back).items() if times > 1]
    assert len(repeated) <= 100, "no more than what was published and not yet recorded"
    assert (office.waiting(), office.committed(), recorded(office)) == ([], len(LETTERS), len(LETTERS))


def test_what_is_recorded_is_not_repeated_although_the_group_forgot_it(office: Office) -> None:
    office.put([b"one", b"two", b"three"])
    assert office.run("replay", "0:0", "0:1").exit_code == 0
    forget(office)
    assert office.waiting() == [2]
    assert office.run("replay", "--all").stdout == f"{office.topic}.dlq 0:2 replayed\n"
    assert [one.value for one in office.came_back()] == [b"one", b"two", b"three"]
    assert office.committed() == 3


def forget(office: Office) -> None:
    """As if the command had been ended before it could commit."""
    place = TopicPartition(dead_letter_topic(office.topic), 0)

    async def reset() -> None:
        consumer = AIOKafkaConsumer(**office.kafka.options(), group_id=OPERATOR_GROUP, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([place])
            await consumer.commit({place: 0})
        finally:
            await consumer.stop()

    asyncio.run(reset())


def test_a_record_that_comes_back_each_time_is_stopped_after_the_third(office: Office) -> None:
    office.put([b"poison"])
    for replays in range(3):
        assert office.listed()[0]["replays"] == replays
        assert office.run("replay", "--all").exit_code == 0
        back = office.came_back()[-1]
        assert back.value is not None
        office.put([back.value], headers=tuple(one for one in back.headers if one[0] != "traceparent"))
    stopped = office.run("replay", "--all")
    assert (stopped.exit_code, stopped.stdout) == (1, "")
    assert "0:3: it came back after 3 replays; mend what refuses it, then use --force" in stopped.stderr
    assert office.run("replay", "--all", "--max-replays", "4").exit_code == 0
    assert len(office.came_back()) == 4


def test_two_operators_at_once_are_one_too_many(office: Office) -> None:
    office.put([b"one"])

    async def meanwhile() -> None:
        engine = make_engine(office.database.admin_dsn, pool_size=1, application_name="closeflow-tests")
        async with try_advisory_lock(engine, "dead_letters") as mine:
            assert mine
            done = await asyncio.to_thread(office.run, "replay", "--all")
            assert (done.exit_code, done.stdout) == (1, "")
            assert "somebody else is replaying or discarding dead letters just now" in done.stderr
        await engine.dispose()

    asyncio.run(meanwhile())
    assert (office.came_back(), office.waiting()) == ([], [0])
    assert office.run("replay", "--all").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--topic", "nothing"], "nothing has no dead letters: Kafka has no topic nothing.dlq"),
        (["show", "nothing", "0", "0"], "nothing has no dead letters: Kafka has no topic nothing.dlq"),
        (["replay", "--topic", "nothing", "--all", "--reason", "r"], "Kafka has no topic nothing.dlq"),
        (["show", "$topic", "7", "0"], "$topic.dlq has no letter 7:0; `closectl dlq list` shows those that wait"),
        (["show", "$topic", str(2**31 - 1), "0"], "$topic.dlq has no letter 2147483647:0"),
        (["show", "$topic", "0", str(2**63 - 1)], "$topic.dlq has no letter 0:9223372036854775807"),
        (["replay", "--topic", "$topic", "7:0", "--reason", "r"], "- $topic.dlq 7:0: there is no such letter"),
        (["discard", "--topic", "$topic", "0:99", "--reason", "r"], "- $topic.dlq 0:99: there is no such letter"),
        (
            ["discard", "--topic", "$topic", f"{2**31 - 1}:{2**63 - 1}", "--reason", "r"],
            "- $topic.dlq 2147483647:9223372036854775807: there is no such letter",
        ),
    ],
)
def test_what_is_not_there_is_named(office: Office, arguments: Sequence[str], told: str) -> None:
    office.put([b"one"])
    done = closectl("dlq", *(one.replace("$topic", office.topic) for one in arguments), **office.at)
    assert (done.exit_code, done.stdout) == (1, "")
    assert told.replace("$topic", office.topic) in done.stderr
    assert (office.waiting(), office.came_back()) == ([0], [])


def test_letters_whose_topic_is_gone_wait(office: Office) -> None:
    office.put([b"one"])
    asyncio.run(remove_topics(office.kafka, [TopicSpec(name=office.topic, partitions=1, config={})]))
    done = office.run("replay", "--all")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"Kafka has no topic {office.topic}" in done.stderr
    assert (office.waiting(), recorded(office)) == ([0], 0)
    assert office.run("discard", "--all").exit_code == 0
