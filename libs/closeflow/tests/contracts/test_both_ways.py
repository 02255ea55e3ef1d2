"""Models and schemas say the same: what one takes the other takes, but for rules that are listed here with a reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from closeflow.contracts import Undecodable, WireModel, decode, encode
from closeflow.contracts.schema_files import schema_files
from closeflow.contracts.topics import TOPIC_MODELS

from .generated import CHECKER, values

EXAMPLES = Path(__file__).parents[4] / "schemas" / "examples"
SCHEMAS = {
    topic: json.loads(schema_files()[f"{model.SCHEMA}.v{model.VERSION}.json"]) for topic, model in TOPIC_MODELS.items()
}
VALIDATORS = {topic: Draft202012Validator(schema, format_checker=CHECKER) for topic, schema in SCHEMAS.items()}

ONLY_THE_MODEL = (
    "must be below",  # The size of a decimal: a pattern cannot count.
    "must be a decimal written as a string",  # The same: more than 128 digits.
    "must have at most",
    "greater than",  # Above 0, where the pattern allows 0.
    # What one message can contradict by itself.
    "is missing on a",
    "is below last_qty",
    "is not order_qty",
    "cash_amount is",
    "reverses_exec_id belongs to",
    "charge_id belongs to",
    "but cash_amount, commission and fees make",
    "must be a time between 1970 and 9999",
)
"""Why the model may refuse what the schema takes: rules that JSON Schema has no words for."""
LENIENT = {
    "broker-fill": {
        # No fill may be lost for a comment, a code, or a figure that decides nothing: cut, cleaned or left out.
        "reason", "reject_code", "avg_px", "last_px", "position_qty", "commission", "fees", "currency",
        "transact_time",  # Gives way to received_at.
        # Of an update that has no use for them they are not looked at.
        "exec_id", "exec_ref_id", "last_qty", "reject_class",
    },
    "position-events": {"reason", "emission"},
    "submit-order": {"emission"},
    "execution-events": {"emission"},
}  # fmt: skip
"""What the model reads although no writer may say it: the schema is the writers' promise."""
MADE_UP: dict[str, Any] = {
    "text": "text",
    "empty": "",
    "null": None,
    "number": 7.5,
    "negative": -1,
    "list": [],
    "object": {},
    "true": True,
}


@pytest.mark.parametrize("topic", sorted(TOPIC_MODELS))
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_the_schema_takes_the_model_reads_and_writes_again(topic: str, data: st.DataObject) -> None:
    value = data.draw(values(SCHEMAS[topic]))
    VALIDATORS[topic].validate(value)
    assert_read_and_written(topic, value)


def assert_read_and_written(topic: str, value: dict[str, Any]) -> None:
    model = TOPIC_MODELS[topic]
    read = reading(topic, value)
    if isinstance(read, str):
        assert any(rule in read for rule in ONLY_THE_MODEL), read
        return
    written = encode(read)
    VALIDATORS[topic].validate(json.loads(written))
    assert decode(model, written) == read


def reading(topic: str, value: dict[str, Any]) -> WireModel | str:
    """What the model reads, or why it does not."""
    try:
        return decode(TOPIC_MODELS[topic], json.dumps(value).encode())
    except Undecodable as refused:
        return refused.reason


def good(topic: str) -> Iterator[dict[str, Any]]:
    for path in sorted((EXAMPLES / topic).glob("*.json")):
        yield json.loads(path.read_text())


def changed(topic: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each example with one field lost, or given a value that is somebody's mistake."""
    for example in good(topic):
        for name in SCHEMAS[topic]["properties"]:
            lost = {key: value for key, value in example.items() if key != name}
            yield name, "lost", lost
            for how, value in MADE_UP.items():
                yield name, how, {**copy.deepcopy(example), name: value}
            if isinstance(example.get(name), str):
                yield name, "padded", {**copy.deepcopy(example), name: f" {example[name]}"}
                yield name, "longer", {**copy.deepcopy(example), name: example[name] * 200}


@pytest.mark.parametrize("topic", sorted(TOPIC_MODELS))
def test_a_changed_example_is_taken_by_both_or_by_neither(topic: str) -> None:
    wrong, seen = [], 0
    for name, how, value in changed(topic):
        seen += 1
        valid = VALIDATORS[topic].is_valid(value)
        read = reading(topic, value)
        if isinstance(read, str):
            if valid and not any(rule in read for rule in ONLY_THE_MODEL):
                wrong.append(f"{name} {how}: only the schema takes it ({read})")
        elif not valid and name not in LENIENT[topic] and not (topic == "broker-fill" and how == "empty"):
            wrong.append(f"{name} {how}: only the model takes it")
    assert wrong == []
    assert seen > 100


@pytest.mark.parametrize("topic", sorted(TOPIC_MODELS))
def test_a_field_that_a_newer_writer_added_is_taken_by_both(topic: str) -> None:
    for example in good(topic):
        value = {**example, "a_field_of_tomorrow": {"deep": [1]}}
        VALIDATORS[topic].validate(value)
        assert decode(TOPIC_MODELS[topic], json.dumps(value).encode()) == decode(
            TOPIC_MODELS[topic], json.dumps(example).encode()
        )


@pytest.mark.parametrize("topic", sorted(TOPIC_MODELS))
def test_fields_and_what_must_be_there_are_the_same_on_both_sides(topic: str) -> None:
    model, schema = TOPIC_MODELS[topic], SCHEMAS[topic]
    assert list(schema["properties"]) == list(model.model_fields)
    assert set(schema["required"]) == {name for name, field in model.model_fields.items() if field.is_required()}
