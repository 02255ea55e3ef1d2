"""A tap on all topics: every record of the system tests is what its topic's file and schema promise."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker

from closeflow.contracts import BrokerFillV1, ErrorClass, broker_fill_key, dead_letter_topic, schema_name
from closeflow.contracts.record_headers import DEAD_LETTERS, PARKED_SINCE, event_types_of, headers_of
from closeflow.contracts.topics import BROKER_FILL, TOPIC_MODELS
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.read_to_end import Offsets, TailRecord, open_tail
from demo.system import REPOSITORY
from tests.aside import run_aside

CHECKER: Final = FormatChecker()
LETTERS: Final = {dead_letter_topic(topic): topic for topic in TOPIC_MODELS}
NOT_ALWAYS: Final = {"traceparent", "close_request_id", "attempt", "position_version"}
"""Headers that have no value, or are not there, where there is nothing to say."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@CHECKER.checks("date-time", ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(_TIME.fullmatch(value) and datetime.fromisoformat(value))


def _validator(topic: str) -> Draft202012Validator:
    model = TOPIC_MODELS[topic]
    file = REPOSITORY / "schemas" / "json" / f"{model.SCHEMA}.v{model.VERSION}.json"
    return Draft202012Validator(json.loads(file.read_text()), format_checker=CHECKER)


VALIDATORS: Final = {topic: _validator(topic) for topic in TOPIC_MODELS}


class Tap:
    """Reads on from where it was. `planted` are values that a test has written itself, which nobody can read."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._since: Offsets | None = None
        self._partitions: defaultdict[tuple[str, bytes | None], set[int]] = defaultdict(set)
        self.planted: set[bytes] = set()
        self.seen: Counter[str] = Counter()

    def wrong(self) -> list[str]:
        """What of the records that are new is not as it should be; a line for each."""
        return [line for record in run_aside(self._new()) for line in self.check(record)]

    async def _new(self) -> list[TailRecord]:
        async with open_tail(self._connection, [*TOPIC_MODELS, *LETTERS], self._since) as tail:
            found = await tail.drain()
            self._since = await tail.positions()
        return found

    def check(self, record: TailRecord) -> Iterator[str]:
        """Of one record."""
        self.seen[record.topic] += 1
        place = f"{record.topic} {record.partition}:{record.offset}"
        if record.topic in LETTERS:
            problems = list(_of_letter(record))
        elif record.value in self.planted:
            problems = []
        else:
            problems = [*_of_headers(record), *_of_value(record), *self._of_partition(record)]
        yield from (f"{place}: {one}" for one in problems)

    def _of_partition(self, record: TailRecord) -> Iterator[str]:
        found = self._partitions[record.topic, record.key]
        found.add(record.partition)
        if len(found) > 1:
            yield f"key {record.key!r} is on partitions {sorted(found)}"


def _of_headers(record: TailRecord) -> Iterator[str]:
    model = TOPIC_MODELS[record.topic]
    said = {name: None if raw is None else raw.decode(errors="replace") for name, raw in record.headers}
    expected = set(headers_of(record.topic))
    # A record that was put back has some of these.
    own = {name for name in said if not name.startswith("dlq_") and name != PARKED_SINCE}
    yield from (f"header {name} is not there" for name in sorted(expected - own - NOT_ALWAYS))
    yield from (f"header {name} is on no page" for name in sorted(own - expected))
    yield from (f"header {name} has no value" for name in sorted(expected & own - NOT_ALWAYS) if said[name] is None)
    if said.get("ce_type") not in event_types_of(record.topic):
        yield f"ce_type {said.get('ce_type')} is not one of the topic's"
    if said.get("ce_dataschema") not in (schema_name(model), schema_name(model).removeprefix("urn:closeflow:")):
        yield f"ce_dataschema is {said.get('ce_dataschema')}"
    if said.get("ce_specversion") != "1.0" or said.get("content-type") != "application/json":
        yield "ce_specversion or content-type is another one"
    if not _TIME.fullmatch(str(said.get("ce_time"))):
        yield f"ce_time is {said.get('ce_time')}"
    if not _is_uuid(said.get("ce_id")):
        yield f"ce_id is {said.get('ce_id')}"


def _of_value(record: TailRecord) -> Iterator[str]:
    try:
        value: Any = json.loads(record.value or b"")
    except ValueError as error:
        yield f"the value is no JSON: {error}"
        return
    for misfit in VALIDATORS[record.topic].iter_errors(value):
        yield f"{'/'.join(map(str, misfit.absolute_path)) or 'value'}: {misfit.message}"
    if not isinstance(value, dict):
        return
    headers = {name: raw.decode() for name, raw in record.headers if raw is not None}
    if value.get("event_id") != headers.get("ce_id"):
        yield f"event_id is {value.get('event_id')} and ce_id is {headers.get('ce_id')}"
    if record.key != _key_of(record.topic, value):
        yield f"its key is {record.key!r}"
    if "event_type" in value and value["event_type"] != headers.get("ce_type"):
        yield f"event_type is {value['event_type']} and ce_type is {headers.get('ce_type')}"


def _key_of(topic: str, value: dict[str, Any]) -> bytes:
    if TOPIC_MODELS[topic] is BrokerFillV1:
        assert topic == BROKER_FILL
        return broker_fill_key(str(value.get("client_order_id")))
    return str(value.get("position_id")).encode()


def _of_letter(record: TailRecord) -> Iterator[str]:
    said = {name: (raw or b"").decode(errors="replace") for name, raw in record.headers}
    yield from (f"header {name} is not there" for name in sorted(DEAD_LETTERS.keys() - said.keys() - {"dlq_replays"}))
    yield from (f"header {name} is on no page" for name in said if name.startswith("dlq_") and name not in DEAD_LETTERS)
    if said.get("dlq_origin_topic") != LETTERS[record.topic]:
        yield f"it comes from {said.get('dlq_origin_topic')}"
    if said.get("dlq_error_class") not in set(ErrorClass):
        yield f"dlq_error_class is {said.get('dlq_error_class')}"
    if not _TIME.fullmatch(said.get("dlq_first_seen", "")):
        yield f"dlq_first_seen is {said.get('dlq_first_seen')}"


def _is_uuid(text: str | None) -> bool:
    try:
        return str(UUID(text)) == text
    except (TypeError, ValueError):
        return False
