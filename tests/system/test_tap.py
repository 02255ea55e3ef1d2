"""The tap sees what goes wrong in any record, and lets through what is as it should be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from closeflow.kafka.read_to_end import TailRecord
from tests.system.desk import Desk
from tests.system.tap import Tap


@pytest.fixture
def records(desk: Desk) -> dict[str, TailRecord]:
    """A record of each topic, as a close makes them."""
    held = desk.hold(10)
    desk.close(held)
    desk.until_status("closed", [held])
    topics = ("submit-order", "broker-fill", "position-events", "execution-events")
    found: dict[str, TailRecord] = {}

    def all_there() -> bool:
        found.update({topic: desk.read(topic)[-1] for topic in topics if desk.read(topic)})
        return found.keys() == {*topics}

    desk.until("a record of each topic", all_there)
    return found


def said(desk: Desk, record: TailRecord) -> list[str]:
    return list(Tap(desk.system.kafka).check(record))


def with_value(record: TailRecord, **changes: Any) -> TailRecord:
    value = {**json.loads(record.value or b"{}"), **changes}
    return replace(record, value=json.dumps({name: one for name, one in value.items() if one is not None}).encode())


def with_header(record: TailRecord, name: str, text: str | None) -> TailRecord:
    kept = tuple((one, raw) for one, raw in record.headers if one != name)
    return replace(record, headers=kept if text is None else (*kept, (name, text.encode())))


def test_each_planted_fault_of_a_record_is_named(desk: Desk, records: dict[str, TailRecord]) -> None:
    for topic, record in records.items():
        assert said(desk, record) == [], topic
        for planted, words in (
            (with_value(record, symbol=None), "'symbol' is a required property"),
            (with_value(record, side="hold"), "'hold' is not"),
            (with_value(record, event_id="01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22"), "and ce_id is"),
            (replace(record, value=b"{"), "the value is no JSON"),
            (replace(record, value=b"[]"), "is not of type 'object'"),
            (replace(record, key=b"another"), "its key is b'another'"),
            (with_header(record, "ce_type", "SOMETHING_ELSE"), "ce_type SOMETHING_ELSE is not one of the topic's"),
            (with_header(record, "ce_time", "today"), "ce_time is today"),
            (with_header(record, "ce_id", None), "header ce_id is not there"),
            (with_header(record, "ce_dataschema", "urn:closeflow:other.v1"), "ce_dataschema is urn:closeflow:other.v1"),
            (with_header(record, "x-desk", "1"), "header x-desk is on no page"),
        ):
            found = said(desk, planted)
            assert any(words in one for one in found), (topic, words, found)


def test_the_tap_of_all_scenarios_sees_every_topic(tap: Tap, records: dict[str, TailRecord]) -> None:
    before = tap.seen.copy()
    assert tap.wrong() == []
    assert {topic for topic in records if tap.seen[topic] > before[topic]} == records.keys()


def test_a_key_on_two_partitions_is_named(desk: Desk, records: dict[str, TailRecord]) -> None:
    tap, record = Tap(desk.system.kafka), records["position-events"]
    assert list(tap.check(record)) == []
    moved = replace(record, partition=(record.partition + 1) % 6)
    assert any("is on partitions" in one for one in tap.check(moved))
    assert tap.seen["position-events"] == 2
