"""One close is one trace: every span has its parent there, every stage is in it, and batches are linked both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest

from broker_simulator.control import Behaviour, RunSteps, Step
from closeflow.telemetry.trace import parse_traceparent
from demo.system import SERVICES
from tests.system.desk import Desk, Held
from tests.tracing.collector import Collector, Received, collecting

CALL: Final = "POST /v1/positions/{position_id}/close"
STAGES: Final = {
    "accept close": "close-api",
    "plan close": "order-submitter",
    "send order": "order-submitter",
    "trade update": "fill-processor",
    "apply update": "fill-processor",
    "wake close": "reconciler",
    "cancel order": "order-submitter",
}
TOPICS: Final = {"submit-order": "order-submitter", "position-events": "reconciler", "execution-events": "reconciler"}
BATCHES: Final = {"accept close": "accept batch", "plan close": "plan batch", "apply update": "apply batch"}
"""What is done to a close together with others, and the span of that, which is in a trace of its own."""


@pytest.fixture
def collector(desk: Desk) -> Iterator[Collector]:
    """Every service sends all its spans here, for one test."""
    system, before = desk.system, desk.system.overrides
    with collecting() as found:
        tracing = {"OTLP_ENDPOINT": found.endpoint, "OTLP_SAMPLE_RATIO": "1"}
        system.overrides = {one: {**before.get(one, {}), **tracing} for one in SERVICES} | {
            one: settings for one, settings in before.items() if one not in SERVICES
        }
        try:
            restart(desk)
            yield found
        finally:
            system.overrides = before
            restart(desk)


def restart(desk: Desk) -> None:
    for service in SERVICES:
        if service in desk.system.running:
            assert desk.system.stop(service) == 0
    desk.system.start(*SERVICES)


def kill_nobody(desk: Desk) -> None:
    assert set(SERVICES) <= desk.system.running.keys()


def kill_all(desk: Desk) -> None:
    """What they have not exported by then is lost (docs/tracing.md); the caller chooses a moment at which all is."""
    for service in SERVICES:
        desk.system.kill(service)
    desk.system.start(*SERVICES)


@pytest.mark.parametrize("trouble", [kill_nobody, kill_all], ids=["undisturbed", "every service is killed"])
def test_a_close_that_is_partly_filled_cancelled_retried_and_closed_is_one_trace(
    desk: Desk, collector: Collector, trouble: Callable[[Desk], None]
) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(execution=RunSteps(steps=(Step(do="fill", quantity=4),))), symbol=held.symbol)
    request = desk.close(held, body={"working_timeout_seconds": 10})
    context = parse_traceparent(desk.request(request)["traceparent"])
    assert context is not None
    seen = partial(collector.trace, context.trace_id)
    collector.until("the first fill is applied", lambda: {"send order", "apply update"} <= names(seen()).keys())
    desk.control.clear_script()
    everything_told(desk, collector, held)
    trouble(desk)
    desk.until_status("closed", [held])
    assert [one["status"] for one in desk.orders(held)] == ["canceled", "filled"]
    everything_told(desk, collector, held)
    collector.until("all stages are there", lambda: STAGES.keys() <= names(seen()).keys())

    spans = seen()
    assert_connected(spans)
    told_by = {one.name: one.service for one in spans if one.name in STAGES}
    assert told_by == STAGES
    count = names(spans)
    assert (count["plan close"], count["send order"], count["cancel order"]) == (2, 2, 1)
    assert count["apply update"] == count["trade update"] >= 4, (
        "of either order: taken and filled, and one is cancelled"
    )
    assert_linked(collector, spans)


def names(spans: list[Received]) -> dict[str, int]:
    """How many spans there are of each name."""
    return {name: sum(one.name == name for one in spans) for name in {one.name for one in spans}}


def everything_told(desk: Desk, collector: Collector, held: Held) -> None:
    """Each event of the position that is in the database has its span below the one that it was written in."""
    rows = desk.rows("SELECT event_type, traceparent FROM outbox_events WHERE position_id = %s", held.id)
    assert rows

    def untold() -> list[object]:
        there = sorted((one.trace_id, one.parent_id) for one in collector.spans() if one.name == "outbox to Kafka")
        missing: list[object] = []
        for row in rows:
            context = parse_traceparent(row["traceparent"])
            assert context is not None, row
            place = (context.trace_id, context.span_id)
            if place in there:
                there.remove(place)
            else:
                missing.append(row)
        return missing

    collector.until("every event is told of", lambda: not untold())


def assert_connected(spans: list[Received]) -> None:
    """From the call down: nothing else begins the trace, and nothing hangs on a span that is not there."""
    by_id = {one.span_id: one for one in spans}
    roots = [(one.service, one.name) for one in spans if not one.parent_id]
    assert roots == [("close-api", CALL)]
    assert [one for one in spans if one.parent_id and one.parent_id not in by_id] == []
    parents = {
        (one.name, by_id[one.parent_id].name) for one in spans if one.parent_id and one.name != "outbox to Kafka"
    }
    assert {("accept close", CALL), ("plan close", "outbox to Kafka"), ("apply update", "trade update")} <= parents
    topics = {
        str(one.attributes["messaging.destination.name"]): one.service for one in spans if one.name == "outbox to Kafka"
    }
    assert topics == TOPICS
    for one in spans:
        assert one.started_ns <= one.ended_ns


def assert_linked(collector: Collector, spans: list[Received]) -> None:
    """A batch's span is in another trace, links to the close's, and is linked by it."""
    others = {(one.trace_id, one.span_id): one for one in collector.spans()}
    for name, batch in BATCHES.items():
        members = [one for one in spans if one.name == name]
        assert members
        for member in members:
            (link,) = member.links
            assert others[link].name == batch
            assert link[0] != member.trace_id
            assert (member.trace_id, member.span_id) in others[link].links
