"""The readers of the last release, executed: they read what today's writers write, and today's read what theirs do."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closeflow.contracts import Undecodable, UnknownValue, decode, encode, schema_name
from closeflow.contracts.released_readers import PACKAGE, freeze_readers
from closeflow.contracts.schema_files import breaking_changes, schema_files
from closeflow.contracts.topics import TOPIC_MODELS

from .generated import values

SCHEMAS = Path(__file__).parents[4] / "schemas"
READERS = SCHEMAS / "released" / "readers"
SOURCES = Path(__file__).parents[2] / "src"
TOPICS = sorted(TOPIC_MODELS)
EXAMPLES = [
    (path.parent.name, path)
    for path in sorted((SCHEMAS / "examples").glob("*/*.json"))
    if path.parent.name in TOPIC_MODELS
]


def released(module: str) -> ModuleType:
    if str(READERS) not in sys.path:
        sys.path.append(str(READERS))
    return importlib.import_module(f"{PACKAGE}.contracts.{module}")


def schema_of(topic: str) -> dict[str, Any]:
    model = TOPIC_MODELS[topic]
    found: dict[str, Any] = json.loads(schema_files()[f"{model.SCHEMA}.v{model.VERSION}.json"])
    return found


def new_values(topic: str) -> set[str]:
    """Enum values that the release did not know: its readers put them aside, as was promised."""
    before, after = released_schema(topic), schema_of(topic)
    return {
        value
        for name, node in after["$defs"].items()
        for value in set(node.get("enum", ())) - set(before["$defs"].get(name, {}).get("enum", ()))
    }


def released_schema(topic: str) -> dict[str, Any]:
    found: dict[str, Any] = released("topics").TOPIC_MODELS[topic].model_json_schema(mode="validation")
    return found


def read_by_the_release(topic: str, value: bytes) -> Any:
    """What the release reads; None where it puts the record aside for an enum value that it does not know."""
    codec = released("codec")
    headers = [("ce_dataschema", schema_name(TOPIC_MODELS[topic]).encode())]
    try:
        return codec.decode(released("topics").TOPIC_MODELS[topic], value, headers)
    except codec.UnknownValue as unknown:
        if any(repr(one) in str(unknown) for one in new_values(topic)):
            return None
        raise


@pytest.mark.parametrize("topic", TOPICS)
def test_the_kept_readers_are_those_of_the_release(topic: str) -> None:
    """The schemas were frozen before the release was finished, and it may have added to them; it broke nothing."""
    kept = json.loads((SCHEMAS / "released" / f"{TOPIC_MODELS[topic].SCHEMA}.v1.json").read_text())
    theirs = {**released_schema(topic), "$schema": kept["$schema"], "$id": kept["$id"]}
    assert breaking_changes(kept, theirs) == []
    assert theirs["properties"].keys() == kept["properties"].keys()


@pytest.mark.parametrize("topic", TOPICS)
def test_no_two_of_a_name_are_compared_with_themselves(topic: str) -> None:
    theirs = released("topics").TOPIC_MODELS[topic]
    assert theirs is not TOPIC_MODELS[topic]
    assert theirs.__module__.startswith(PACKAGE)


@pytest.mark.parametrize(("topic", "path"), EXAMPLES, ids=[f"{topic}/{path.stem}" for topic, path in EXAMPLES])
def test_the_release_reads_todays_examples(topic: str, path: Path) -> None:
    written = encode(decode(TOPIC_MODELS[topic], path.read_bytes()))
    read = read_by_the_release(topic, written)
    if read is not None:
        assert_same(json.loads(written), json.loads(released("codec").encode(read)))


@pytest.mark.parametrize("topic", TOPICS)
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_release_reads_what_todays_writers_write(topic: str, data: st.DataObject) -> None:
    try:
        model = decode(TOPIC_MODELS[topic], json.dumps(data.draw(values(schema_of(topic)))).encode())
    except Undecodable:
        return  # Not what a writer of ours can write.
    written = encode(model)
    read = read_by_the_release(topic, written)
    if read is not None:
        assert_same(json.loads(written), json.loads(released("codec").encode(read)))


@pytest.mark.parametrize("topic", TOPICS)
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_todays_readers_read_what_the_release_writes(topic: str, data: st.DataObject) -> None:
    codec, theirs = released("codec"), released("topics").TOPIC_MODELS[topic]
    try:
        model = codec.decode(theirs, json.dumps(data.draw(values(released_schema(topic)))).encode())
    except codec.Undecodable:
        return
    written = codec.encode(model)
    assert_same(json.loads(written), json.loads(encode(decode(TOPIC_MODELS[topic], written))))


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Every field that both have says the same."""
    differing = {name for name in one.keys() & other.keys() if one[name] != other[name]}
    assert differing == set()


@pytest.mark.parametrize(
    ("topic", "change"),
    [
        ("submit-order", {"quantity": None}),
        ("submit-order", {"quantity": 100.5}),
        ("submit-order", {"position_id": "41"}),
        ("submit-order", {"requested_at": "2026-03-02 14:30:05"}),
        ("position-events", {"position_version": "7"}),
        ("position-events", {"event_type": "position closed"}),
        ("position-events", {"quantity": "1e3"}),
        ("execution-events", {"currency": "US dollars"}),
        ("execution-events", {"cash_amount": "1.00"}),
        ("execution-events", {"price": None}),
        ("broker-fill", {"broker_seq": -1}),
        ("broker-fill", {"client_order_id": None}),
    ],
)
def test_a_writer_that_breaks_the_contract_is_found_by_the_readers(topic: str, change: dict[str, Any]) -> None:
    """What the executed comparison would say of a change to a model that no rule about schemas has seen."""
    (path, *_) = sorted((SCHEMAS / "examples" / topic).glob("*.json"))
    value = {**json.loads(path.read_text()), **change}
    written = json.dumps({name: one for name, one in value.items() if one is not None}).encode()
    with pytest.raises(released("codec").Undecodable):
        read_by_the_release(topic, written)


@pytest.mark.parametrize("topic", TOPICS)
def test_the_release_refuses_another_major_version_and_puts_aside_a_value_that_it_does_not_know(topic: str) -> None:
    (path, *_) = sorted((SCHEMAS / "examples" / topic).glob("*.json"))
    codec, theirs = released("codec"), released("topics").TOPIC_MODELS[topic]
    newer = [("ce_dataschema", f"urn:closeflow:{TOPIC_MODELS[topic].SCHEMA}.v2".encode())]
    with pytest.raises(codec.Undecodable) as refused:
        codec.decode(theirs, path.read_bytes(), newer)
    assert refused.value.error_class == "wrong_version"
    enums = {"execution-events": "event_type", "position-events": "position_status"}
    value = {**json.loads(path.read_text()), enums.get(topic, "side"): "of_tomorrow"}
    with pytest.raises(codec.UnknownValue):
        codec.decode(theirs, json.dumps(value).encode())
    with pytest.raises(UnknownValue):
        decode(TOPIC_MODELS[topic], json.dumps(value).encode())


def test_todays_readers_can_be_kept_in_the_same_way(tmp_path: Path) -> None:
    """What a release would keep needs nothing of this repository: it is imported where only it is."""
    modules = freeze_readers(SOURCES, tmp_path)
    assert "closeflow.contracts.wire" in modules
    program = (
        f"import sys; sys.path[:] = [one for one in sys.path if 'closeflow' not in one]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from {PACKAGE}.contracts.topics import TOPIC_MODELS\n"
        f"assert not [one for one in sys.modules if one.split('.')[0] == 'closeflow']\n"
        f"print(sorted(TOPIC_MODELS))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout.strip()) == (0, str(TOPICS)), shown.stderr
