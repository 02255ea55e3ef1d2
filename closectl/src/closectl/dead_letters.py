"""Replay and discard dead letters: publish, record, then let the group's offset go on; in that order.

A crash in between repeats the publication, which consumers de-duplicate. The offset goes on up to the first letter that
is not handled; what is handled behind it is a row of `dead_letter_actions`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from closeflow.contracts import ErrorClass
from closeflow.kafka import DlqReader, DlqRecord, KafkaConnection, open_dlq_reader, open_producer
from closeflow.storage.advisory_locks import try_advisory_lock
from closeflow.storage.core.engine import Database, retrying, transaction
from closeflow.storage.dead_letter_actions import DlqAction, DlqRecordId, Handled, handled_letters, record_handled

MAX_REPLAYS: Final = 3
_MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024

Place = tuple[int, int]
"""Partition and offset in a dead letter topic."""


class Busy(Exception):
    """Another operator is replaying or discarding just now; two at once would publish a letter twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an operator asks for. Without `places` it is every letter that waits."""

    action: DlqAction
    by: str
    reason: str
    places: frozenset[Place] | None = None
    max_replays: int | None = MAX_REPLAYS
    """A letter that came back so often is refused; None for no such guard."""
    dry_run: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of the letters that were asked for; in a dry run, what would."""

    done: list[DlqRecord] = field(default_factory=list)
    refused: list[tuple[DlqRecord, str]] = field(default_factory=list)
    missing: list[tuple[Place, str]] = field(default_factory=list)


def letter_id(letter: DlqRecord) -> DlqRecordId:
    """The place and time by which a handled record is remembered; the time tells it from one of a topic made anew."""
    return DlqRecordId(
        topic=letter.topic, partition=letter.partition, offset=letter.offset, appended_at=letter.appended_at
    )


async def waiting_letters(database: Database, kafka: KafkaConnection, origin: str, *, limit: int) -> list[DlqRecord]:
    """What nobody has replayed or discarded yet, the oldest first. Raises TopicMissing."""
    found: list[DlqRecord] = []
    async with open_dlq_reader(kafka, origin) as box:
        async for letters, handled in _unhandled(database, box, await box.starts()):
            found += [one for one in letters if letter_id(one) not in handled]
            if len(found) >= limit:
                break
    return found[:limit]


async def find_letter(
    database: Database, kafka: KafkaConnection, origin: str, place: Place
) -> tuple[DlqRecord, Handled | None] | None:
    """One letter and what was done with it; None when the topic does not have it."""
    async with open_dlq_reader(kafka, origin) as box:
        letter = await box.letter(*place)
    if letter is None:
        return None
    async with transaction(database) as tx:
        handled = await handled_letters(tx, letters=[letter_id(letter)])
    return letter, handled.get(letter_id(letter))


async def handle_letters(database: Database, kafka: KafkaConnection, origin: str, request: Request) -> Outcome:
    """Do it, to one topic's letters in their order; one that is refused does not hold up the others.

    Raises Busy, TopicMissing, and KafkaError: then some may be done, and the rest waits.
    """
    async with try_advisory_lock(database, "dead_letters") as mine:
        if not mine:
            raise Busy("somebody else is replaying or discarding dead letters just now; repeat the command after that")
        async with (
            open_dlq_reader(kafka, origin) as box,
            # As they were dead-lettered: compressed, and without a limit of our own.
            open_producer(kafka, max_request_bytes=_MAX_REQUEST_BYTES, compress=True) as producer,
        ):
            if request.action == "replayed":
                box.require_origin()
            outcome = Outcome()
            starts = await box.starts()
            front = _Front()
            async for letters, handled in _unhandled(database, box, starts):
                going = _choose(letters, handled, request, outcome)
                if not request.dry_run:
                    if request.action == "replayed":
                        await producer.publish_many([one.replay() for one in going])
                    await _record(database, going, request)
                    await box.commit(front.pass_over(letters, {*handled, *map(letter_id, going)}))
            if request.places is not None:
                seen = {(one.partition, one.offset) for one in [*outcome.done, *(one for one, _ in outcome.refused)]}
                for place in sorted(request.places - seen):
                    outcome.missing.append((place, await _why_missing(database, box, place)))
            return outcome


def _choose(
    letters: Sequence[DlqRecord], handled: Mapping[DlqRecordId, Handled], request: Request, outcome: Outcome
) -> list[DlqRecord]:
    """Those that go, in their order; the refused ones are told of."""
    going: list[DlqRecord] = []
    for letter in letters:
        named = request.places is None or (letter.partition, letter.offset) in request.places
        if not named or letter_id(letter) in handled:
            continue
        refusal = _refusal(letter, request)
        if refusal is None:
            going.append(letter)
        else:
            outcome.refused.append((letter, refusal))
    outcome.done += going
    return going


def _refusal(letter: DlqRecord, request: Request) -> str | None:
    if request.action == "discarded":
        return None
    origin = letter.header("dlq_origin_topic")
    if origin is not None and origin != letter.origin:
        return f"it came from topic {origin}, not {letter.origin}"
    if letter.header("dlq_error_class") == ErrorClass.UNREADABLE_RECORD and not letter.key and not letter.value:
        return "nothing of the record could be read, so there is nothing to replay; ask the producer, then discard it"
    if request.max_replays is not None and letter.replays >= request.max_replays:
        return f"it came back after {letter.replays} replays; mend what refuses it, then use --force"
    return None


async def _record(database: Database, letters: Collection[DlqRecord], request: Request) -> None:
    if letters:
        ids = [letter_id(one) for one in letters]
        await retrying(
            database,
            lambda tx: record_handled(tx, letters=ids, action=request.action, by=request.by, reason=request.reason),
        )


async def _why_missing(database: Database, box: DlqReader, place: Place) -> str:
    letter = await box.letter(*place)
    if letter is None:
        return "there is no such letter; `closectl dlq list` shows those that wait"
    async with transaction(database) as tx:
        handled = (await handled_letters(tx, letters=[letter_id(letter)])).get(letter_id(letter))
    if handled is None:
        return "it does not wait any more"
    return f"it was {handled.action} by {handled.by} at {handled.at:%Y-%m-%d %H:%M:%S}: {handled.reason}"


async def _unhandled(
    database: Database, box: DlqReader, starts: Mapping[int, int]
) -> AsyncIterator[tuple[list[DlqRecord], dict[DlqRecordId, Handled]]]:
    """The letters from `starts` on, some at a time, with those of them that are handled already."""
    async for letters in box.chunks(starts):
        async with transaction(database) as tx:
            handled = await handled_letters(tx, letters=[letter_id(one) for one in letters])
        yield letters, handled


class _Front:
    """Up to where every letter is handled: in a partition it stays where the first one waits."""

    def __init__(self) -> None:
        self._stopped: set[int] = set()

    def pass_over(self, letters: Sequence[DlqRecord], handled: Collection[DlqRecordId]) -> dict[int, int]:
        """The offsets to commit after these letters, which follow those of the call before."""
        moved: dict[int, int] = {}
        for letter in letters:
            if letter_id(letter) not in handled:
                self._stopped.add(letter.partition)
            if letter.partition not in self._stopped:
                moved[letter.partition] = letter.offset + 1
        return moved
