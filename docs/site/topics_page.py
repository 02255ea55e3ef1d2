"""A page for each topic: what it promises, its headers, fields and codes, and its examples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from closeflow.contracts.asyncapi import promises
from closeflow.contracts.record_headers import DEAD_LETTERS, ERROR_CLASSES, event_types_of, headers_of
from closeflow.contracts.topic_files import TopicFile, read_topic_files
from docs.site.markup import Section, example, inline, page, prose, table
from docs.site.schemas import described, fields_of

REPOSITORY: Final = Path(__file__).parents[2]
SCHEMAS: Final = REPOSITORY / "schemas"
_INTRODUCTION: Final = """
What risk, accounting and other teams read of closeflow, and what its services say to each other. Each topic has a page
with what a consumer may rely on, what it must do, every header, field and code, and examples.

Values are JSON in UTF-8, decimals are strings without exponent, and times are RFC 3339 in UTC. Headers are those of
CloudEvents 1.0 in Kafka's binary mode. Where a topic and its page differ, a test of closeflow fails.
"""
_UNREAD: Final = """
These are refused by every reader of ours, for the class and the reason that is shown; the next record goes on. One of
the class `unknown_value` is parked and no dead letter: it is read again by itself once the reader knows the value.
"""


def topic_pages() -> dict[str, str]:
    """File name → content: a list of the topics, and a page for each."""
    files = [told for _, told in read_topic_files(SCHEMAS / "topics", of=TopicFile)]
    made = {"topics.html": _overview(files)}
    for told in files:
        made[_file(told.topic)] = _dead_letters(told) if told.carries_dead_letters else _topic(told)
    return made


def _file(topic: str) -> str:
    return f"topic-{topic}.html"


def _overview(files: Iterable[TopicFile]) -> str:
    rows = (
        (
            f'<a href="{_file(one.topic)}"><code class="topic">{one.topic}</code></a>',
            inline(one.description),
            escape(one.producer),
            escape(", ".join(one.consumers)),
        )
        for one in files
    )
    machine = (
        "<p>For programs: <code>schemas/asyncapi.yaml</code>, the schemas in <code>schemas/json</code>, the topic "
        "files in <code>schemas/topics</code>.</p>"
    )
    return page("topics.html", "Topics", prose(_INTRODUCTION) + machine + table(("topic", "what", "from", "to"), rows))


def _topic(told: TopicFile) -> str:
    schema = json.loads((SCHEMAS / "json" / f"{told.schema_name}.json").read_text())
    types = table(
        ("value", "what"),
        ((f'<code class="code">{one}</code>', inline(said)) for one, said in event_types_of(told.topic).items()),
    )
    named = schema.get("$defs", {})
    contents = [
        Section("promises", "What it promises"),
        Section("headers", "Headers"),
        Section("types", "Values of ce_type"),
        Section("fields", "Fields", [Section(name, name) for name in named]),
        Section("examples", "Examples"),
        Section("refused", "What is refused"),
    ]
    body = [
        *_promised(told),
        f'<h2 id="headers">Headers</h2>\n{_headers(headers_of(told.topic))}',
        f'<h2 id="types">Values of ce_type</h2>\n{types}',
        f'<h2 id="fields">Fields</h2>\n<p>Schema <code>{told.schema_name}</code>.</p>{prose(schema["description"])}',
        fields_of(schema),
        *described(named),
        '<h2 id="examples">Examples</h2>',
        *_examples(told),
        f'<h2 id="refused">What is refused</h2>\n{prose(_UNREAD)}',
        *_refused(told),
    ]
    return page(_file(told.topic), f"Topic {told.topic}", "\n".join(body), contents)


def _dead_letters(told: TopicFile) -> str:
    classes = table(
        ("class", "what"), ((f'<code class="code">{one}</code>', inline(said)) for one, said in ERROR_CLASSES.items())
    )
    contents = [
        Section("promises", "What it promises"),
        Section("headers", "Headers"),
        Section("classes", "Values of dlq_error_class"),
    ]
    origin = told.topic.removesuffix(".dlq")
    body = [
        *_promised(told),
        f'<h2 id="headers">Headers</h2>\n<p>Besides those of the record of <a href="{_file(origin)}">{origin}</a>:</p>',
        _headers(DEAD_LETTERS),
        f'<h2 id="classes">Values of dlq_error_class</h2>\n{classes}',
    ]
    return page(_file(told.topic), f"Topic {told.topic}", "\n".join(body), contents)


def _promised(told: TopicFile) -> Iterator[str]:
    facts = {
        "Key": told.key,
        "Partitions": str(told.partitions),
        "From": told.producer,
        "To": ", ".join(told.consumers),
        **promises(told),
    }
    yield f'<p><code class="topic">{told.topic}</code>: {inline(told.description)}</p>'
    yield '<h2 id="promises">What it promises</h2>'
    yield table(("", ""), ((escape(name), inline(said)) for name, said in facts.items()))
    yield f"<p>A consumer must:</p><ul>{''.join(f'<li>{inline(one)}</li>' for one in told.consumers_must)}</ul>"
    yield "<p>Settings in Kafka:</p>" + table(
        ("setting", "value"), ((f"<code>{name}</code>", escape(value)) for name, value in told.config.items())
    )


def _headers(headers: Mapping[str, str]) -> str:
    rows = ((f'<code class="header">{name}</code>', inline(said)) for name, said in headers.items())
    return table(("header", "what"), rows)


def _examples(told: TopicFile) -> Iterator[str]:
    assert told.examples is not None
    for path in sorted((REPOSITORY / told.examples).glob("*.json")):
        yield example(_words(path), json.loads(path.read_text()))


def _refused(told: TopicFile) -> Iterator[str]:
    assert told.examples is not None
    for path in sorted((REPOSITORY / told.examples / "bad").glob("*.json")):
        case: Mapping[str, Any] = json.loads(path.read_text())
        yield example(f"{_words(path)}: `{case['error_class']}`, {case['reason']}", case)


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
