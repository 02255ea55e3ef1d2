"""Every topic, header, field and code on the pages of the topics is in the code, and the other way round."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from closeflow.contracts import ErrorClass, build_headers, dead_letter_topic
from closeflow.contracts.record_headers import CLOUDEVENTS, DEAD_LETTERS, ERROR_CLASSES, OUTBOX, event_types_of
from closeflow.contracts.topic_files import TopicFile, read_topic_files
from closeflow.contracts.topics import BROKER_FILL, TOPIC_MODELS
from closeflow.contracts.wire import WireModel
from closeflow.kafka.dlq import dead_letter_headers, replay_headers
from closeflow.kafka.records import DeadLetter
from docs.site.topics_page import SCHEMAS, topic_pages

from .repository import REPOSITORY

PAGES = topic_pages()
LETTERS = [dead_letter_topic(topic) for topic in TOPIC_MODELS]
CONNECTOR = json.loads((REPOSITORY / "connect/outbox-connector.json").read_text())
NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def marked(page: str, kind: str) -> set[str]:
    return set(re.findall(rf'<code class="{kind}">([^<]+)</code>', page))


def field_names(page: str) -> set[str]:
    (table,) = re.findall(r'<h2 id="fields">.*?<table>(.*?)</table>', page, re.DOTALL)
    return set(re.findall(r"<tr><td><code>([^<]+)</code>", table))


def enums_of(model: type[WireModel]) -> dict[str, list[str]]:
    schema = model.model_json_schema(mode="validation")
    return {name: node["enum"] for name, node in schema.get("$defs", {}).items() if "enum" in node}


def test_every_topic_has_a_page_and_every_page_a_topic() -> None:
    topics = {*TOPIC_MODELS, *LETTERS}
    assert marked(PAGES["topics.html"], "topic") == topics
    assert set(PAGES) - {"topics.html"} == {f"topic-{topic}.html" for topic in topics}
    for topic in topics:
        assert marked(PAGES[f"topic-{topic}.html"], "topic") == {topic}


def headers_from_the_outbox() -> Iterable[str]:
    """As the connector is told to make them, and the one that EventRouter makes of itself."""
    for placed in CONNECTOR["transforms.outbox.table.fields.additional.placement"].split(","):
        yield placed.split(":")[2]
    for transform in CONNECTOR["transforms"].split(","):
        yield from filter(None, [CONNECTOR.get(f"transforms.{transform}.header")])
    yield "id"


def headers_that_are_built(model: type[WireModel]) -> set[str]:
    made = build_headers(model, event_id=UUID(int=1), event_type="T", source="/x", time=NOW, traceparent="00-1-1-01")
    return {name for name, _ in made}


@pytest.mark.parametrize("topic", TOPIC_MODELS)
def test_the_headers_on_a_page_are_those_that_are_written(topic: str) -> None:
    written = headers_that_are_built(TOPIC_MODELS[topic]) if topic == BROKER_FILL else set(headers_from_the_outbox())
    assert marked(PAGES[f"topic-{topic}.html"], "header") == written


def test_what_the_outbox_adds_is_told_apart() -> None:
    assert set(headers_from_the_outbox()) == {*CLOUDEVENTS, *OUTBOX}


@pytest.mark.parametrize("topic", LETTERS)
def test_the_headers_of_dead_letters_are_those_that_are_written(topic: str) -> None:
    letter = DeadLetter(
        topic="t",
        partition=0,
        offset=1,
        key=None,
        raw=b"",
        headers=(("kept", b"1"),),
        error_class=ErrorClass.BAD_JSON,
        reason="r",
    )
    once = dead_letter_headers(letter, group="g", now=NOW)
    written = {name for name, _ in (*once, *replay_headers(once))} - {"kept"}
    assert marked(PAGES[f"topic-{topic}.html"], "header") == written == set(DEAD_LETTERS)


@pytest.mark.parametrize("topic", TOPIC_MODELS)
def test_the_fields_and_values_on_a_page_are_the_models(topic: str) -> None:
    page, model = PAGES[f"topic-{topic}.html"], TOPIC_MODELS[topic]
    assert field_names(page) == set(model.model_fields)
    for name, values in enums_of(model).items():
        (shown,) = re.findall(rf'<h3 id="{name}">.*?<p>(<code>[^\n]*)</p>\n', page, re.DOTALL)
        assert re.findall(r"<code>([^<]+)</code>", shown) == values, name


@pytest.mark.parametrize("topic", TOPIC_MODELS)
def test_the_codes_on_a_page_are_those_of_the_code(topic: str) -> None:
    assert marked(PAGES[f"topic-{topic}.html"], "code") == set(event_types_of(topic))
    examples = [json.loads(path.read_text()) for path in (SCHEMAS / "examples" / topic).glob("*.json")]
    said = {one["event_type"] for one in examples if "event_type" in one}
    assert said <= set(event_types_of(topic))


def test_every_error_class_is_on_every_page_of_dead_letters() -> None:
    assert set(ERROR_CLASSES) == set(ErrorClass)
    for topic in LETTERS:
        assert marked(PAGES[f"topic-{topic}.html"], "code") == {one.value for one in ErrorClass}


@pytest.mark.parametrize("topic", TOPIC_MODELS)
def test_every_example_is_shown(topic: str) -> None:
    page = PAGES[f"topic-{topic}.html"]
    files = list((SCHEMAS / "examples" / topic).glob("*.json")) + list(
        (SCHEMAS / "examples" / topic).glob("bad/*.json")
    )
    assert page.count("<details>") == len(files)
    for path in files:
        assert path.stem.replace("_", " ") in page


def test_every_promise_of_a_topic_file_is_on_its_page() -> None:
    for _, told in read_topic_files(SCHEMAS / "topics", of=TopicFile):
        page = re.sub(r"</?code>", "`", PAGES[f"topic-{told.topic}.html"])
        for said in (
            told.owner,
            told.compatibility,
            told.ordering,
            told.delivery,
            told.retention,
            *told.consumers_must,
        ):
            assert said.replace("<", "&lt;").replace(">", "&gt;") in page, (told.topic, said)
