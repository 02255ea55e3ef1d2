"""Kafka as its users see it: committed offsets, batches in the hands of those who lost their partition."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from tests.simulation.faults import Fault, Faults, Violation

V = TypeVar("V")
PARTITIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    partition: int
    offset: int
    key: str
    value: V


@dataclass(slots=True)
class Topic(Generic[V]):
    partitions: list[list[Entry[V]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])

    def append(self, key: str, value: V) -> None:
        number = zlib.crc32(key.encode()) % PARTITIONS
        partition = self.partitions[number]
        partition.append(Entry(number, len(partition), key, value))

    def entries(self) -> list[Entry[V]]:
        return [entry for partition in self.partitions for entry in partition]


@dataclass(slots=True)
class Consumer(Generic[V]):
    """One instance's place in the group. `batch` was polled; `done` says that its transaction has committed."""

    name: str
    positions: dict[int, int] = field(default_factory=dict)
    batch: list[Entry[V]] = field(default_factory=list)
    done: bool = False
    generation: int = 0


@dataclass(slots=True)
class Group(Generic[V]):
    topic: Topic[V]
    faults: Faults
    committed: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    members: dict[str, Consumer[V]] = field(default_factory=dict)
    processed: set[tuple[int, int]] = field(default_factory=set)
    generation: int = 0

    def join(self, name: str) -> Consumer[V]:
        """A new life of an instance: whatever its last one held is gone, and the partitions are dealt out again."""
        self.members[name] = Consumer(name)
        self.rebalance(0)
        return self.members[name]

    def rebalance(self, turn: int) -> None:
        """Everybody starts at the committed offsets; who holds a batch does not know of it yet, and processes it."""
        self.generation += 1
        names = sorted(self.members)
        for name in names:
            member = self.members[name]
            member.positions = {}
            if not member.batch:
                member.generation = self.generation
        for number in range(PARTITIONS):
            if names:
                owner = self.members[names[(number + turn) % len(names)]]
                owner.positions[number] = self.committed[number]

    def poll(self, member: Consumer[V], most: int) -> bool:
        """Fill the member's batch from its partitions; False when there is nothing."""
        if member.batch:
            raise Violation("a consumer polled with a batch in its hands")
        member.generation = self.generation
        for number, position in member.positions.items():
            found = self.topic.partitions[number][position : position + most - len(member.batch)]
            member.batch += found
            member.positions[number] = position + len(found)
        if any((entry.partition, entry.offset) in self.processed for entry in member.batch):
            self.faults.saw(Fault.REDELIVERY)
        member.done = False
        return bool(member.batch)

    def has_processed(self, member: Consumer[V]) -> None:
        """To be called once the transaction of the batch has committed."""
        if member.generation != self.generation:
            self.faults.saw(Fault.ZOMBIE)
        self.processed |= {(entry.partition, entry.offset) for entry in member.batch}
        member.done = True

    def commit(self, member: Consumer[V]) -> None:
        """Commit the offsets behind the batch; refused to a member of an older generation."""
        if member.generation == self.generation:
            for entry in member.batch:
                at = (entry.partition, entry.offset)
                if at not in self.processed:
                    raise Violation(f"22 offset safe: {at} is committed before its transaction")
                self.committed[entry.partition] = max(self.committed[entry.partition], entry.offset + 1)
        member.batch = []
        member.done = False

    def lag(self) -> int:
        return sum(len(partition) - self.committed[number] for number, partition in enumerate(self.topic.partitions))
