"""Counts the dead letters that nobody has replayed or discarded, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from closeflow.contracts import dead_letter_topic
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.dlq_reader import OPERATOR_GROUP
from closeflow.kafka.group_lag import group_lag
from closeflow.storage.backlog import handled_letters_after
from closeflow.storage.core.engine import Database, transaction
from closeflow.telemetry.metrics import gauge

LETTERS = gauge("closeflow_dead_letters")


@dataclass(frozen=True, slots=True)
class CountDeadLetters:
    """The job; `once` is one cycle. `origins` are the topics whose consumers write dead letters."""

    database: Database
    kafka: KafkaConnection
    origins: Sequence[str]

    async def once(self) -> int:
        """Nothing is repaired by it: 0. From where the operator's group stands to the end, less those that were handled
        one by one."""
        for origin in self.origins:
            topic = dead_letter_topic(origin)
            lag = await group_lag(self.kafka, {OPERATOR_GROUP: topic})
            waiting = sum(max(0, end - committed) for committed, end in lag.values())
            starts = [(topic, partition, committed) for (_, _, partition), (committed, _) in lag.items()]
            async with transaction(self.database) as tx:
                handled = await handled_letters_after(tx, starts=starts)
            LETTERS.labels(topic).set(max(0, waiting - handled.get(topic, 0)))
        return 0
