"""The dead letter topic: original key and bytes, and headers that say where they came from and why."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from closeflow.contracts import dead_letter_topic
from closeflow.contracts.wire import format_time
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.producer import Outgoing, Producer, open_producer
from closeflow.kafka.records import DeadLetter, Headers

PREFIX: Final = "dlq_"
REPLAYS: Final = "dlq_replays"
"""How often the record was put back to its topic; a letter that was never replayed has no such header."""
_KEPT: Final = ("dlq_attempts", "dlq_first_seen", REPLAYS)
_MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024


class DeadLetterLimitExceeded(Exception):
    """So many records cannot be read that the fault is ours or a producer's, and going on would empty the topic."""


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """Stop when more than `most` of the last `of_last` records were dead letters."""

    most: int = 100
    of_last: int = 500


DEFAULT_LIMIT: Final = DeadLetterLimit()


class DeadLetterBudget:
    """Counts against a limit, in this process: a restart begins a new count, and re-reads what was not committed."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._last: deque[bool] = deque(maxlen=limit.of_last)
        self._dead = 0

    def count(self, outcomes: Iterable[bool]) -> None:
        """Take the outcomes (True for a dead letter) in the order the records came.

        Raises `DeadLetterLimitExceeded`, which says how to go on.
        """
        for dead in outcomes:
            if len(self._last) == self._last.maxlen:
                self._dead -= self._last[0]
            self._last.append(dead)
            self._dead += dead
            if self._dead > self._limit.most:
                raise DeadLetterLimitExceeded(
                    f"{self._dead} of the last {len(self._last)} records cannot be read (at most {self._limit.most} of "
                    f"{self._limit.of_last} may be); nothing of this batch was dead-lettered and its offsets are not "
                    "committed. Look at the newest dead letters, mend the producer or the reader, and start again"
                )


def dead_letter_headers(letter: DeadLetter, *, group: str, now: datetime) -> Headers:
    """The record's own headers, then ours. A letter that was replayed and failed again keeps when it was first seen
    and how often it was replayed, and counts its attempts."""
    before = {name: raw for name, raw in letter.headers if name.startswith(PREFIX)}
    kept = tuple((name, raw) for name, raw in letter.headers if not name.startswith(PREFIX))
    attempts = before.get("dlq_attempts") or b"0"
    ours = {
        "dlq_origin_topic": letter.topic,
        "dlq_origin_partition": str(letter.partition),
        "dlq_origin_offset": str(letter.offset),
        "dlq_consumer_group": group,
        "dlq_error_class": letter.error_class.value,
        "dlq_reason": letter.reason,
        "dlq_attempts": str(_count(attempts) + 1),
    }
    first_seen = before.get("dlq_first_seen") or format_time(now).encode()
    replays = before.get(REPLAYS)
    return (
        *kept,
        *((name, text.encode(errors="replace")) for name, text in ours.items()),
        ("dlq_first_seen", first_seen),
        *(((REPLAYS, replays),) if replays is not None else ()),
    )


def replays_of(headers: Headers) -> int:
    """How often the record of a letter was put back to its topic."""
    return _count(dict(headers).get(REPLAYS) or b"0")


def _count(raw: bytes) -> int:
    """0 for what no count of ours can be: anybody can write headers, and Python refuses thousands of digits."""
    return int(raw) if raw.isdigit() and len(raw) <= 9 else 0


def replay_headers(headers: Headers) -> Headers:
    """The headers with which a letter's record goes back: its own, and of ours those that outlive the way, with one
    replay more. Should it fail again, `dead_letter_headers` takes them over."""
    ours = tuple((name, raw) for name, raw in headers if name in _KEPT and name != REPLAYS)
    own = tuple((name, raw) for name, raw in headers if not name.startswith(PREFIX))
    return (*own, *ours, (REPLAYS, str(replays_of(headers) + 1).encode()))


class DlqPublisher:
    """Publishes dead letters of one consumer group."""

    def __init__(self, producer: Producer, group: str) -> None:
        self._producer = producer
        self._group = group

    async def publish(self, letters: Sequence[DeadLetter], now: datetime) -> None:
        """Returns when Kafka has them all, so that the offsets may pass."""
        await self._producer.publish_many(
            [
                Outgoing(
                    topic=dead_letter_topic(letter.topic),
                    key=letter.key,
                    # aiokafka publishes nothing that has neither key nor value, though Kafka does.
                    value=b"" if letter.raw is None and letter.key is None else letter.raw,
                    headers=dead_letter_headers(letter, group=self._group, now=now),
                )
                for letter in letters
            ]
        )


@asynccontextmanager
async def open_dlq_publisher(connection: KafkaConnection, group: str) -> AsyncIterator[DlqPublisher]:
    """Compressing, and without our own limit of size: a huge record that came compressed must go out again too."""
    async with open_producer(connection, max_request_bytes=_MAX_REQUEST_BYTES, compress=True) as producer:
        yield DlqPublisher(producer, group)
