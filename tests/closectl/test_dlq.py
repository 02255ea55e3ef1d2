"""Dead letters as an operator meets them: real letters in Kafka, the operator's role on a real database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from closeflow.contracts import dead_letter_topic
from closeflow.kafka import TopicSpec, ensure_topics, open_producer
from closeflow.kafka.topics import remove_topics
from tests.closectl.offices import Office
from tests.closectl.running import ROLE, answer, closectl
from tests.storage.seeding import owner

REQUEST = uuid.UUID(int=7)
ORDER = f"cf-{REQUEST.hex}-1"
NAMING_AN_ORDER = f'{{"client_order_id": "{ORDER}", "last_qty": "NaN"}}'.encode()


def test_list_and_show_tell_where_a_letter_came_from_and_why(office: Office) -> None:
    office.put([NAMING_AN_ORDER, b"\xff\x00", None])
    first, second, third = office.listed()
    assert first.pop("appended_at")
    assert first.pop("first_seen")
    assert first == {
        "topic": office.topic,
        "partition": 0,
        "offset": 0,
        "origin_topic": office.topic,
        "origin_partition": "3",
        "origin_offset": "40",
        "consumer_group": "a-consumer",
        "error_class": "bad_value",
        "reason": "it is\\x1b[2J wrong",
        "attempts": "1",
        "replays": 0,
        "key": "k",
    }
    assert (second["offset"], third["key"]) == (1, "6bff")
    shown = answer("dlq", "show", f"{office.topic}.dlq", "0", "0", **office.at)
    assert (shown["client_order_id"], shown["close_request_id"]) == (ORDER, str(REQUEST))
    assert (shown["encoding"], shown["value"], shown["state"]) == ("utf-8", NAMING_AN_ORDER.decode(), "waiting")
    assert (shown["headers"]["traceparent"], shown["headers"]["dlq_attempts"]) == ("t", "1")
    hexed = answer("dlq", "show", office.topic, "0", "1", **office.at)
    assert (hexed["encoding"], hexed["value"], hexed["client_order_id"]) == ("hex", "ff00", None)
    assert answer("dlq", "show", office.topic, "0", "2", **office.at)["value"] is None
    for_people = closectl("dlq", "show", office.topic, "0", "0", **office.at).stdout
    assert f"close_request_id               {REQUEST}" in for_people
    assert "0:1" in closectl("dlq", "list", "--topic", office.topic, **office.at).stdout


def test_a_replay_puts_the_bytes_back_in_order_with_their_headers_and_is_recorded(office: Office) -> None:
    office.put([b"one", None, b"\xff" * 900_000], headers=(("dlq_first_seen", b"2026-01-01T00:00:00Z"),))
    dry = office.run("replay", "--all", "--dry-run")
    assert (dry.exit_code, dry.stdout.splitlines()[0]) == (0, f"{office.topic}.dlq 0:0 would be replayed")
    assert (office.came_back(), office.waiting(), office.committed()) == ([], [0, 1, 2], None)

    done = office.run("replay", "--all")

    assert (done.exit_code, done.stderr) == (0, "")
    back = office.came_back()
    assert [(one.key, one.value) for one in back] == [(b"k", b"one"), (b"k\xff", None), (b"k", b"\xff" * 900_000)]
    assert set(back[0].headers) == {
        ("traceparent", b"t"),
        ("dlq_attempts", b"1"),
        ("dlq_first_seen", b"2026-01-01T00:00:00Z"),
        ("dlq_replays", b"1"),
    }
    assert (office.waiting(), office.committed()) == ([], 3)
    assert office.run("replay", "--all").stdout == "nothing to do: no letter waits\n"
    (action,) = answer("actions", "list", "--subject", f"{office.topic}.dlq/0/1", **office.at)
    assert (action["action"], action["by"], action["reason"]) == ("dlq_replay", "ann", "mended")


def test_single_letters_are_handled_in_any_order_and_the_group_follows(office: Office) -> None:
    office.put([b"0", b"1", b"2", b"3"])
    assert office.run("replay", "0:2").exit_code == 0
    assert (office.waiting(), office.committed()) == ([0, 1, 3], None)
    assert office.run("discard", "0:0").stdout == f"{office.topic}.dlq 0:0 discarded\n"
    assert (office.waiting(), office.committed()) == ([1, 3], 1)
    assert office.run("replay", "0:1").exit_code == 0
    assert (office.waiting(), office.committed()) == ([3], 3)
    assert [one.value for one in office.came_back()] == [b"2", b"1"], "what is discarded goes nowhere"
    assert answer("dlq", "show", office.topic, "0", "0", **office.at)["state"] == "discarded by ann: mended"
    (action,) = answer("actions", "list", "--subject", f"{office.topic}.dlq/0/0", **office.at)
    assert action["action"] == "dlq_discard"

    again = office.run("replay", "0:2", "0:3", "0:99")
    assert again.exit_code == 1
    assert again.stdout == f"{office.topic}.dlq 0:3 replayed\n"
    assert "0:2: it was replayed by ann at " in again.stderr
    assert "0:99: there is no such letter" in again.stderr


def test_a_letter_that_came_back_too_often_is_refused_unless_forced(office: Office) -> None:
    office.put([b"loops"], headers=(("dlq_replays", b"3"),))
    office.put([b"does not"], headers=(("dlq_replays", b"2"),))
    refused = office.run("replay", "--all")
    assert refused.exit_code == 1
    assert "0:0: it came back after 3 replays; mend what refuses it, then use --force" in refused.stderr
    assert (office.waiting(), [one.value for one in office.came_back()]) == ([0], [b"does not"])
    assert dict(office.came_back()[0].headers)["dlq_replays"] == b"3"

    assert office.run("replay", "0:0", "--force").exit_code == 0
    assert dict(office.came_back()[1].headers)["dlq_replays"] == b"4"
    assert (office.waiting(), office.committed()) == ([], 2)


def test_a_crash_between_publishing_and_recording_repeats_the_letter_and_loses_none(office: Office) -> None:
    office.put([b"one", b"two"])
    with owner(office.database.admin_dsn) as db:
        db.execute(f"REVOKE INSERT ON dead_letter_actions FROM {ROLE}".encode())
        try:
            broken = office.run("replay", "--all")
        finally:
            db.execute(f"GRANT INSERT ON dead_letter_actions TO {ROLE}".encode())
    assert broken.exit_code == 2
    assert (office.waiting(), office.committed()) == ([0, 1], None)
    assert office.run("replay", "--all").exit_code == 0
    assert [one.value for one in office.came_back()] == [b"one", b"two"] * 2
    assert (office.waiting(), office.committed()) == ([], 2)


def test_a_topic_made_anew_hides_none_of_its_letters(office: Office) -> None:
    office.put([b"one", b"two"])
    office.run("discard", "--all")
    assert office.waiting() == []
    letters = [TopicSpec(name=dead_letter_topic(office.topic), partitions=1, config={})]
    asyncio.run(remove_topics(office.kafka, letters))
    asyncio.run(ensure_topics(office.kafka, letters))
    office.put([b"new"])
    assert office.waiting() == [0]


def test_a_letter_of_another_topic_is_not_replayed_here(office: Office) -> None:
    async def misplace() -> None:
        async with open_producer(office.kafka) as producer:
            headers = [("dlq_origin_topic", b"elsewhere")]
            await producer.publish(dead_letter_topic(office.topic), key=None, value=b"astray", headers=headers)

    asyncio.run(misplace())
    refused = office.run("replay", "--all")
    assert refused.exit_code == 1
    assert f"0:0: it came from topic elsewhere, not {office.topic}" in refused.stderr
    assert (office.came_back(), office.run("discard", "--all").exit_code) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["replay"], 2, "say which: PARTITION:OFFSET of one topic, or --all"),
        (["replay", "0:1", "--all"], 2, "say which: PARTITION:OFFSET of one topic, or --all"),
        (["replay", "first"], 2, "'first' is not PARTITION:OFFSET, such as 0:12"),
        (["replay", "--all", "--reason", " "], 2, "say why; it is kept with what was done"),
        (["discard", "--all", "--topic", "nothing"], 1, "nothing has no dead letters: Kafka has no topic nothing.dlq"),
    ],
)
def test_what_cannot_be_done_is_told(office: Office, arguments: Sequence[str], code: int, told: str) -> None:
    done = office.run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert told in done.stderr


def test_servers_that_are_away_are_told_with_exit_code_2(office: Office) -> None:
    away = closectl("dlq", "list", **{**office.at, "kafka_bootstrap_servers": "127.0.0.1:1"})
    assert away.exit_code == 2
    assert "closectl: Kafka did not do it: " in away.stderr
    unset = closectl("dlq", "list", postgres_dsn=office.at["postgres_dsn"])
    assert (unset.exit_code, "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS is not set" in unset.stderr) == (2, True)
    nowhere = closectl("dlq", "replay", "0:1", "--reason", "r", **office.at)
    assert (nowhere.exit_code, "say of which topic these are: --topic" in nowhere.stderr) == (2, True)
    missing = closectl("dlq", "show", office.topic, "0", "5", **office.at)
    assert (missing.exit_code, "has no letter 0:5" in missing.stderr) == (1, True)


def test_the_deeds_of_a_topic_with_a_long_name_can_be_listed(office: Office) -> None:
    subject = f"{'x' * 200}.dlq/2147483647/9223372036854775807"
    assert answer("actions", "list", "--subject", subject, **office.at) == []
