"""examples/risk as a team runs it: killed, given records twice, from the first record, without its state."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from closeflow.contracts import PositionEvent, encode
from tests.examples.consuming import (
    Example,
    Log,
    Sent,
    changed,
    copied,
    headers_of,
    position_event,
    position_events,
    records,
    until,
)

if TYPE_CHECKING:
    import devstack


pytestmark = pytest.mark.timeout(900)  # It starts Python many times, which is most of its time.


@pytest.fixture
async def log(stack: devstack.Stack) -> AsyncIterator[Log]:
    made = Log(stack.kafka_bootstrap_servers, f"risk-{uuid4().hex[:12]}")
    await made.make()
    yield made
    await made.delete(*await made.topics())


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def example(log: Log, tmp_path: Path, port: int) -> Iterator[Example]:
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": log.servers,
        "RISK_TOPIC": log.topic,
        "RISK_GROUP": log.topic,
        "RISK_REPLICATION": "1",
        "RISK_PORT": str(port),
    }
    with copied("risk", tmp_path, "risk.py", settings) as made:
        yield made


def ask(port: int, page: str) -> dict[str, Any]:
    try:
        return dict(httpx.get(f"http://127.0.0.1:{port}/{page}", timeout=10).json())
    except (httpx.TransportError, json.JSONDecodeError):
        return {}


def versions(port: int) -> dict[int, tuple[int, Decimal]]:
    return {
        int(key): (one["position_version"], Decimal(one["quantity"])) for key, one in ask(port, "positions").items()
    }


def wanted(events: list[PositionEvent]) -> dict[int, tuple[int, Decimal]]:
    found: dict[int, tuple[int, Decimal]] = {}
    for one in events:
        found[one.position_id] = max(found.get(one.position_id, (0, Decimal(0))), (one.position_version, one.quantity))
    return found


def until_right(example: Example, port: int, events: list[PositionEvent]) -> None:
    until("the view is right", lambda: versions(port) == wanted(events), told=example.said)
    units: dict[tuple[str, str], Decimal] = {}
    last = {one.position_id: one for one in events}
    for one in last.values():
        key = (one.account_id, one.symbol)
        units[key] = units.get(key, Decimal(0)) + one.quantity * 100
    told = {(one["account_id"], one["symbol"]): Decimal(one["units"]) for one in ask(port, "exposure")["exposure"]}
    assert told == units


async def test_the_view_is_the_same_after_kills_repetitions_a_replay_and_a_lost_state(
    example: Example, log: Log, port: int
) -> None:
    events = position_events(range(1, 121), seed=1)
    first, rest = events[: len(events) // 2], events[len(events) // 2 :]
    await log.send(records(first))
    example.start("worker", "-l", "info")
    until("some are there", lambda: versions(port), told=example.said)
    example.kill()
    example.start("worker", "-l", "info")
    await log.send(records(first + rest))  # The first half comes again: every one of its versions is old by then.
    until("some of the rest are there", lambda: len(versions(port)) > len(wanted(first)), told=example.said)
    example.kill()
    example.start("worker", "-l", "info")
    until_right(example, port, events)
    await log.until_committed(log.topic)

    example.kill()
    changelogs = [one for one in await log.topics() if one.endswith("-changelog")]
    assert changelogs
    await log.delete(*changelogs)
    example.start("worker", "-l", "info")
    until_right(example, port, events)
    assert "the state is lost: everything is read again" in example.log.read_text()

    example.kill()
    example.start("worker", "-l", "info", RISK_GROUP=f"{log.topic}-again")
    until_right(example, port, events)


async def test_what_it_does_not_know_is_put_where_a_person_finds_it(example: Example, log: Log, port: int) -> None:
    one = position_event(7, 2, Decimal(-5))
    v1 = headers_of(PositionEvent)
    odd = {
        "wrong_version": Sent("7", encode(one), [("ce_dataschema", b"urn:closeflow:position-event.v2")]),
        "wrong_schema": Sent("7", encode(one), [("ce_dataschema", b"urn:closeflow:execution-event.v1")]),
        "bad_json": Sent("7", b"{", v1),
        "missing_field": Sent("7", b"{}", v1),
        "bad_value": Sent("7", changed(one, quantity="many"), v1),
    }
    unknown = Sent("7", changed(one, position_version=3, position_status="frozen"), v1)
    grown = Sent("7", changed(position_event(7, 4, Decimal(-2)), colour="blue"), v1)
    await log.send([*records([one]), *odd.values(), unknown, grown])
    example.start("worker", "-l", "info")
    until("the last is there", lambda: versions(port) == {7: (4, Decimal(-2))}, told=example.said)
    dead = await log.dead()
    assert [dict(letter.headers)["dlq_error_class"].decode() for letter in dead] == list(odd)
    assert [letter.value for letter in dead] == [record.value for record in odd.values()]
    (parked,) = ask(port, "exposure")["parked"].values()
    assert (parked["value"].encode(), "position_status" in parked["reason"]) == (unknown.value, True)


def test_a_setting_that_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with copied("risk", tmp_path, "risk.py", {"KAFKA_BOOTSTRAP_SERVERS": ""}) as example:
        ended = example.run("worker")
    said = "risk: KAFKA_BOOTSTRAP_SERVERS is not set; README.md has every setting"
    assert (ended.returncode, ended.stderr.splitlines()) == (1, [said])
