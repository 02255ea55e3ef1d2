"""schemas/ says what the code does: files current, examples parsed, released versions kept."""

from __future__ import annotations

import base64
import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from closeflow.contracts import ErrorClass, Undecodable, UnknownValue, dead_letter_topic, decode, encode
from closeflow.contracts.asyncapi import asyncapi_text
from closeflow.contracts.schema_files import breaking_changes, main, schema_files
from closeflow.contracts.topic_files import BadTopicFile, TopicFile, read_topic_files
from closeflow.contracts.topics import TOPIC_MODELS

SCHEMAS = Path(__file__).parents[4] / "schemas"
GOOD = sorted((SCHEMAS / "examples").glob("*/*.json"))
BAD = sorted((SCHEMAS / "examples").glob("*/bad/*.json"))
NAMES = sorted(schema_files())


def _name(path: Path) -> str:
    return str(path.relative_to(SCHEMAS / "examples").with_suffix(""))


def _released(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / "released" / name).read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_file_is_what_the_model_generates(name: str) -> None:
    assert (SCHEMAS / "json" / name).read_text() == schema_files()[name], (
        "the model changed; run: python -m closeflow.contracts.schema_files write schemas"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_breaks_nothing_that_was_released(name: str) -> None:
    assert breaking_changes(_released(name), json.loads(schema_files()[name])) == []


def test_the_asyncapi_document_is_current_and_its_references_lead_somewhere() -> None:
    text = (SCHEMAS / "asyncapi.yaml").read_text()
    assert text == asyncapi_text(SCHEMAS), "run: python -m closeflow.contracts.schema_files write schemas"
    document = yaml.safe_load(text)
    assert set(document["channels"]) == set(TOPIC_MODELS)
    for reference in re.findall(r"\$ref: '?([^'\n]+)", text):
        if reference.startswith("#/"):
            node = document
            for step in reference[2:].split("/"):
                node = node[step]
        else:
            assert (SCHEMAS / reference).is_file()


def test_writing_and_releasing_make_the_files(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "released").mkdir()
    for name in ("topics", "proto"):
        shutil.copytree(SCHEMAS / name, tmp_path / name)
    shutil.copyfile(SCHEMAS / "openapi.json", tmp_path / "openapi.json")
    assert main(["write", str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "json").iterdir()} == schema_files()
    assert not list((tmp_path / "released").iterdir())
    assert main(["release", str(tmp_path)]) == 0
    released = tmp_path / "released"
    assert {path.name: path.read_text() for path in released.glob("*.v*.json")} == schema_files()
    assert (released / "openapi.json").read_text() == (SCHEMAS / "openapi.json").read_text()
    kept = [str(path.relative_to(released)) for path in released.rglob("*") if path.is_file()]
    assert [one for one in kept if one.startswith("proto")] == ["proto/closeflow/close/v1/close.proto"]
    assert "readers/closeflow_released/contracts/wire.py" in kept
    assert main(["publish"]) == 2


def _submit_order() -> dict[str, Any]:
    return copy.deepcopy(_released("submit-order.v1.json"))


def test_an_added_optional_field_and_an_added_enum_value_are_compatible() -> None:
    current = _submit_order()
    current["properties"]["urgency"] = {"type": "string"}
    current["$defs"]["AssetType"]["enum"].append("future")
    current["properties"]["symbol"]["description"] = "only for people"
    assert breaking_changes(_submit_order(), current) == []


def test_every_other_change_is_a_break() -> None:
    current = _submit_order()
    del current["properties"]["max_slippage_bps"]
    current["required"] += ["limit_price"]
    current["required"].remove("symbol")
    current["$defs"]["AssetType"]["enum"].remove("crypto")
    current["properties"]["attempt"]["maximum"] = 9
    current["properties"]["account_id"]["maxLength"] = 500
    assert breaking_changes(_submit_order(), current) == [
        "account_id has other rules than before",
        "asset_type lost the value crypto",
        "attempt has other rules than before",
        "limit_price became required",
        "max_slippage_bps was removed",
        "symbol became optional",
    ]


@pytest.mark.parametrize("path", GOOD, ids=_name)
def test_a_good_example_is_read_written_and_valid_by_its_schema(path: Path) -> None:
    model = TOPIC_MODELS[path.parent.name]
    read = decode(model, path.read_bytes())
    assert decode(model, encode(read)) == read
    schema = json.loads(schema_files()[f"{model.SCHEMA}.v{model.VERSION}.json"])
    Draft202012Validator(schema).validate(json.loads(path.read_text()))
    Draft202012Validator(schema).validate(json.loads(encode(read)))


@pytest.mark.parametrize("path", BAD, ids=_name)
def test_a_bad_example_is_refused_for_the_reason_it_names(path: Path) -> None:
    told = json.loads(path.read_text())
    if "value_base64" in told:
        value = base64.b64decode(told["value_base64"]) if told["value_base64"] is not None else None
    else:
        value = json.dumps(told["value"]).encode()
    headers = [(name, text.encode()) for name, text in told.get("headers", {}).items()]
    with pytest.raises(Undecodable) as refused:
        decode(TOPIC_MODELS[path.parent.parent.name], value, headers)
    assert refused.value.error_class == told["error_class"]
    assert told["reason"] in refused.value.reason
    assert isinstance(refused.value, UnknownValue) == (told["error_class"] == ErrorClass.UNKNOWN_VALUE)


@pytest.mark.parametrize("topic", sorted(TOPIC_MODELS))
def test_a_topic_file_names_its_schema_and_has_examples_of_both_kinds(topic: str) -> None:
    told = yaml.safe_load((SCHEMAS / "topics" / f"{topic}.yaml").read_text())
    model = TOPIC_MODELS[topic]
    assert told["topic"] == topic
    assert told["schema"] == f"{model.SCHEMA}.v{model.VERSION}"
    assert told["partitions"] == 6
    examples = SCHEMAS.parent / told["examples"]
    assert list(examples.glob("*.json"))
    assert list((examples / "bad").glob("*.json"))
    letters = yaml.safe_load((SCHEMAS / "topics" / f"{dead_letter_topic(topic)}.yaml").read_text())
    assert letters["topic"] == dead_letter_topic(topic)
    assert letters["partitions"] == 1
    assert letters["config"]["max.message.bytes"] > told["config"]["max.message.bytes"]


def test_there_is_no_topic_file_without_a_contract() -> None:
    names = {path.stem for path in (SCHEMAS / "topics").glob("*.yaml")}
    assert names == set(TOPIC_MODELS) | {dead_letter_topic(topic) for topic in TOPIC_MODELS}


DAY_MS = 24 * 3600 * 1000


def test_every_topic_file_promises_all_and_keeps_records_for_the_days_that_it_gives_a_reason_for() -> None:
    """A file that says nothing of order, delivery, compatibility, owner or duties is refused."""
    files = read_topic_files(SCHEMAS / "topics", of=TopicFile)
    assert {told.topic for _, told in files} == {path.stem for path, _ in files}
    for _, told in files:
        days = int(told.config["retention.ms"]) // DAY_MS
        assert told.retention.startswith(f"{days} days"), told.topic
        assert told.carries_dead_letters == (told.examples is None)


@pytest.mark.parametrize(
    "lost", ["owner", "compatibility", "ordering", "delivery", "retention", "consumers_must", "producer", "consumers"]
)
def test_a_topic_file_without_a_promise_is_refused(tmp_path: Path, lost: str) -> None:
    told = yaml.safe_load((SCHEMAS / "topics" / "broker-fill.yaml").read_text())
    file = tmp_path / "broker-fill.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in told.items() if name != lost}))
    with pytest.raises(BadTopicFile, match=rf"broker-fill\.yaml: {lost}: Field required; mend the file"):
        read_topic_files(tmp_path, of=TopicFile)
    file.write_text(yaml.safe_dump(told | {"partition": 6}))
    with pytest.raises(BadTopicFile, match="partition: Extra inputs are not permitted"):
        read_topic_files(tmp_path, of=TopicFile)
