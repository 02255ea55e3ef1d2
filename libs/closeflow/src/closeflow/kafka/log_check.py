"""A consumer's look at its own log: when it is given partitions, and when the connection to their leader is a new one.

A leader never takes back what it gave, so a log loses its tail only where another broker leads it, or the same one
after it was started again; either way the connection changes. What aiokafka fetched over the connection before, and has
not handed out or only just now, may be of the lost tail too, and is fetched again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaTimeoutError

from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.lost_tail import WITHIN_S, LostTail, ReadUpTo, lost_tails, read_mark
from closeflow.tasks import being_cancelled

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    """`lost` are the partitions that lost their tail, each with where it is read from now. What was polled of those
    `put_aside` is given again, as it is in the log now: of the lost ones, and of those that are connected anew."""

    lost: Mapping[TopicPartition, int]
    put_aside: Collection[TopicPartition]


class LogCheck:
    """Knows how far the consumer has read its partitions, and has it read again what took the place of a lost tail."""

    def __init__(
        self,
        connection: KafkaConnection,
        consumer: AIOKafkaConsumer,
        tell: Callable[[Sequence[LostTail]], Awaitable[None]] | None = None,
        passes: Callable[[Exception], bool] = lambda _: False,
        read: Mapping[TopicPartition, ReadUpTo] | None = None,
    ) -> None:
        """`read` is what was read before, by somebody else: it is looked for once there is a connection."""
        self._connection = connection
        self._consumer = consumer
        self._tell = tell
        self._passes = passes
        self._read: dict[TopicPartition, ReadUpTo] = dict(read or {})
        self._links: dict[TopicPartition, object] = dict.fromkeys(self._read, object())
        self._new: set[TopicPartition] = set()
        self._untold: list[LostTail] = []

    def handled(self, last: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """These were handled: where reading goes on, and the time of the last record (milliseconds since 1970)."""
        for tp, (offset, at_ms) in last.items():
            self._read[tp] = ReadUpTo(offset, at_ms if at_ms > 0 else None)

    @property
    def read(self) -> Mapping[TopicPartition, ReadUpTo]:
        """How far each partition was read, of those of which that is known."""
        return self._read

    def mark(self, tp: TopicPartition) -> str:
        """What is kept with the partition's offset."""
        return self._read[tp].mark if tp in self._read else ""

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These are held from now on; the next look asks the group how far they were read."""
        self._links.clear()
        self._read.clear()
        self._new = set(partitions)

    async def look(self, partitions: Collection[TopicPartition], *, polled: Mapping[TopicPartition, int]) -> Looked:
        """Looks at the partitions that are new, and at those whose leader is connected anew; `polled` are those of
        which something was given since, with its first offset. A partition without a leader is looked at once it has
        one: till then nothing new comes of it. Raises KafkaError."""
        await self._tell_of_lost()
        assigned = self._new
        links = {tp: self._link(tp) for tp in partitions}  # What is connected while this looks is looked at next time.
        there = {tp for tp, link in links.items() if link is not None}
        new = assigned & there
        anew = new | {tp for tp in there & self._links.keys() if links[tp] is not self._links[tp]}
        if new:
            self._read |= await self._committed(new)
        lost = await self._check({tp: self._read[tp] for tp in anew & self._read.keys()})
        if self._new is not assigned:  # Others are held meanwhile: what was given is of before that.
            return Looked({}, set(partitions))
        put_aside = anew | (links.keys() - there) & polled.keys()
        for tp in put_aside - lost.keys():
            self._fetch_again(tp, polled.get(tp))
        for tp, link in links.items():
            self._links[tp] = self._links.get(tp, object()) if link is None else link
        self._new = assigned - new
        return Looked(lost, put_aside)

    async def _committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, ReadUpTo]:
        """How far the group has read those of them of which it says so."""
        # aiokafka's own `committed` leaves out what is kept with the offset, and its coordinator waits without an end.
        try:
            async with asyncio.timeout(WITHIN_S):
                found = await self._consumer._coordinator.fetch_committed_offsets(list(partitions))
        except TimeoutError:
            raise KafkaTimeoutError("Kafka does not tell how far the group has read") from None
        return {tp: read_mark(one.offset, one.metadata) for tp, one in found.items() if one.offset > 0}

    def _fetch_again(self, tp: TopicPartition, polled: int | None) -> None:
        """From what was polled on, or else from where the next poll would go on: aiokafka forgets what it has."""
        state = self._consumer._subscription.subscription.assignment.state_value(tp)
        if state is not None and state.has_valid_position:  # Of one that has none nothing was fetched.
            self._consumer.seek(tp, state.position if polled is None else polled)

    def _link(self, tp: TopicPartition) -> object:
        """The connection over which the partition is fetched; None while there is none."""
        client: Any = self._consumer._client
        leader = client.cluster.leader_for_partition(tp)
        return client._conns.get((leader, ConnectionGroup.DEFAULT))

    async def _check(self, read: Mapping[TopicPartition, ReadUpTo]) -> dict[TopicPartition, int]:
        lost = await lost_tails(self._connection, read)
        for tp, one in lost.items():
            log.error(
                "log_tail_lost", topic=one.topic, partition=one.partition, was=one.was, end=one.end, again=one.again
            )
            self._consumer.seek(tp, one.again)
            self._read.pop(tp, None)
        self._untold += lost.values()
        await self._tell_of_lost()
        return {tp: one.again for tp, one in lost.items()}

    async def _tell_of_lost(self) -> None:
        """Once whoever is told can be; reading goes on meanwhile."""
        if self._tell is None or not self._untold:
            return
        try:
            await self._tell(tuple(self._untold))
        except Exception as error:
            if being_cancelled() or not self._passes(error):
                raise
            log.warning("lost_tail_not_told", reason=f"{type(error).__name__}: {error}".partition("\n")[0])
            return
        self._untold.clear()
