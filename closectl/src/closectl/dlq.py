"""`closectl dlq`: look at what consumers could not read or apply, put it back to its topic, or discard it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Final, TypeVar

import typer

from closectl.arguments import LARGEST_ID, LARGEST_PARTITION, AsJson, By, Limit, Reason, shown
from closectl.command_line import examples
from closectl.dead_letters import (
    MAX_REPLAYS,
    Busy,
    Outcome,
    Place,
    Request,
    find_letter,
    handle_letters,
    waiting_letters,
)
from closectl.environment import kafka_connection, kafka_says, with_database
from closectl.output import console, fail, plain, print_json, print_rows, visible
from closeflow.contracts import peek
from closeflow.contracts.topics import TOPIC_MODELS
from closeflow.domain.ids import parse_client_order_id
from closeflow.kafka import DlqRecord, KafkaConnection, KafkaError, TopicMissing
from closeflow.storage.core.engine import Database
from closeflow.storage.dead_letter_actions import DlqAction, Handled

T = TypeVar("T")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_PLACE: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,19})")
TOPICS: Final = tuple(TOPIC_MODELS)

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: what waits in <topic>.dlq. List, show, replay, discard.")


def _origin(topic: str | None) -> str | None:
    if topic is None:
        return None
    origin = topic.removesuffix(".dlq")
    if not _TOPIC.fullmatch(origin):
        raise typer.BadParameter(f"{shown(topic)} is not a topic, such as {', '.join(TOPICS)}")
    return origin


def _places(texts: list[str] | None) -> list[str]:
    for text in texts or ():
        found = _PLACE.fullmatch(text)
        if found is None or int(found[1]) > LARGEST_PARTITION or int(found[2]) > LARGEST_ID:
            raise typer.BadParameter(f"{shown(text)} is not PARTITION:OFFSET, such as 0:12")
    return list(texts or ())


Topic = Annotated[
    str | None, typer.Option(callback=_origin, help="Only the letters of this topic, such as broker-fill.")
]
Places = Annotated[
    list[str] | None, typer.Argument(callback=_places, metavar="PARTITION:OFFSET", help="Which letters.")
]
All = Annotated[bool, typer.Option("--all", help="Every letter that waits.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@dlq.command("list", epilog=examples("dlq list --topic broker-fill"))
def list_(topic: Topic = None, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the letters that nobody has replayed or discarded yet, the oldest of each topic first."""

    async def work(database: Database, kafka: KafkaConnection) -> list[DlqRecord]:
        found: list[DlqRecord] = []
        for one in _topics(topic):
            found += await waiting_letters(database, kafka, one, limit=limit - len(found))
            if len(found) >= limit:
                break
        return found

    rows = [_row(one) for one in _run(work)]
    if as_json:
        print_json(rows)
        return
    columns = ("topic", "place", "first_seen", "attempts", "replays", "error_class", "key", "reason")
    print_rows([{**row, "place": f"{row['partition']}:{row['offset']}"} for row in rows], columns)


@dlq.command("show", epilog=examples("dlq show broker-fill 0 12"))
def show_(
    topic: Annotated[str, typer.Argument(callback=_origin, help="The topic, such as broker-fill.")],
    partition: Annotated[
        int, typer.Argument(min=0, max=LARGEST_PARTITION, help="The partition of the dead letter topic.")
    ],
    offset: Annotated[int, typer.Argument(min=0, max=LARGEST_ID, help="The offset in it.")],
    as_json: AsJson = False,
) -> None:
    """Show one letter: its headers, its original bytes, and which close it is about where that can be read."""

    async def work(database: Database, kafka: KafkaConnection) -> tuple[DlqRecord, Handled | None] | None:
        return await find_letter(database, kafka, topic, (partition, offset))

    found = _run(work)
    if found is None:
        fail(f"{topic}.dlq has no letter {partition}:{offset}; `closectl dlq list` shows those that wait")
    shown = _shown(*found)
    if as_json:
        print_json(shown)
        return
    headers = shown.pop("headers")
    value = shown.pop("value")
    assert isinstance(headers, dict)
    for name, one in [*shown.items(), *((f"header {name}", one) for name, one in headers.items())]:
        console.print(f"{name:30} {plain(one)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"value\n{plain(value)}", markup=False, highlight=False, soft_wrap=True)


@dlq.command(
    "replay",
    epilog=examples(
        "dlq replay --topic broker-fill 0:12 --reason 'the reader is mended' --dry-run",
        "dlq replay --topic broker-fill --all --reason 'the reader is mended'",
    ),
)
def replay_(
    reason: Reason,
    places: Places = None,
    topic: Topic = None,
    every: All = False,
    force: Annotated[bool, typer.Option("--force", help="Also letters that came back too often.")] = False,
    max_replays: Annotated[
        int, typer.Option(min=1, max=1000, help="Refuse letters that came back so often.")
    ] = MAX_REPLAYS,
    dry_run: DryRun = False,
    by: By = "",
) -> None:
    """Put letters back to their topic: the same key and bytes, behind what is there. Consumers de-duplicate.

    A letter that fails again comes back with its replays counted, and is refused after three unless forced.
    """
    _handle("replayed", places, topic, every, dry_run, by, reason, None if force else max_replays)


@dlq.command("discard", epilog=examples("dlq discard --topic broker-fill 0:12 --reason 'of a test account'"))
def discard_(
    reason: Reason,
    places: Places = None,
    topic: Topic = None,
    every: All = False,
    dry_run: DryRun = False,
    by: By = "",
) -> None:
    """Mark letters as handled. Their bytes stay in the topic until its retention, and `show` still shows them."""
    _handle("discarded", places, topic, every, dry_run, by, reason, None)


def _handle(
    action: DlqAction,
    places: Iterable[str] | None,
    topic: str | None,
    every: bool,
    dry_run: bool,
    by: str,
    reason: str,
    max_replays: int | None,
) -> None:
    chosen = frozenset(_place(one) for one in places or ())
    if every == bool(chosen):
        fail("say which: PARTITION:OFFSET of one topic, or --all", code=2)
    if chosen and topic is None:
        fail("say of which topic these are: --topic", code=2)
    request = Request(
        action=action,
        by=by,
        reason=reason,
        places=chosen or None,
        max_replays=max_replays,
        dry_run=dry_run,
    )

    async def work(database: Database, kafka: KafkaConnection) -> list[tuple[str, Outcome]]:
        return [(one, await handle_letters(database, kafka, one, request)) for one in _topics(topic)]

    outcomes = _run(work)
    would = "would be " if dry_run else ""
    for _, outcome in outcomes:
        for letter in outcome.done:
            console.print(f"{_name(letter)} {would}{action}", markup=False, highlight=False, soft_wrap=True)
    if not any(outcome.done or outcome.refused or outcome.missing for _, outcome in outcomes):
        console.print("nothing to do: no letter waits")
    left = [f"- {_name(letter)}: {why}" for _, outcome in outcomes for letter, why in outcome.refused]
    left += [
        f"- {one}.dlq {partition}:{offset}: {why}"
        for one, outcome in outcomes
        for (partition, offset), why in outcome.missing
    ]
    if left:
        fail(f"not {action}:\n" + "\n".join(left))


def _run(work: Callable[[Database, KafkaConnection], Awaitable[T]]) -> T:
    kafka = kafka_connection()
    try:
        return with_database(lambda database: work(database, kafka))
    except (KafkaError, TimeoutError) as error:
        fail(kafka_says(kafka, error), code=2)
    except (TopicMissing, Busy) as error:
        fail(str(error))


def _topics(topic: str | None) -> tuple[str, ...]:
    return TOPICS if topic is None else (topic,)


def _place(text: str) -> Place:
    partition, _, offset = text.partition(":")
    return int(partition), int(offset)


def _name(letter: DlqRecord) -> str:
    return f"{letter.topic} {letter.partition}:{letter.offset}"


def _row(letter: DlqRecord) -> dict[str, object]:
    return {
        "topic": letter.origin,
        "partition": letter.partition,
        "offset": letter.offset,
        "appended_at": letter.appended_at,
        **{
            name: _header(letter, name)
            for name in (
                *("origin_topic", "origin_partition", "origin_offset", "consumer_group"),
                *("error_class", "reason", "attempts", "first_seen"),
            )
        },
        "replays": letter.replays,
        "key": _readable(letter.key)[1],
    }


def _header(letter: DlqRecord, name: str) -> str | None:
    found = letter.header(f"dlq_{name}")
    return None if found is None else visible(found)


def _shown(letter: DlqRecord, handled: Handled | None) -> dict[str, object]:
    encoding, value = _readable(letter.value)
    return {
        **_row(letter),
        "state": "waiting" if handled is None else f"{handled.action} by {handled.by}: {handled.reason}",
        **_about(letter),
        "encoding": encoding,
        "headers": {name: _readable(raw)[1] for name, raw in letter.headers},
        "value": value,
    }


def _about(letter: DlqRecord) -> dict[str, object]:
    """The order and the close that the bytes name, as far as they can be read."""
    said = peek(letter.value)
    order, request = said.get("client_order_id"), said.get("close_request_id")
    parsed = parse_client_order_id(order) if isinstance(order, str) else None
    return {
        "client_order_id": visible(order) if isinstance(order, str) else None,
        "close_request_id": str(parsed[0]) if parsed else visible(request) if isinstance(request, str) else None,
    }


def _readable(raw: bytes | None) -> tuple[str | None, str | None]:
    """The encoding and the text: UTF-8 where it is, else hexadecimal."""
    if raw is None:
        return None, None
    try:
        return "utf-8", visible(raw.decode())
    except UnicodeDecodeError:
        return "hex", raw.hex()
