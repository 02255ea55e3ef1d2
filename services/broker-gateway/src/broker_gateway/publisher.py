"""Broker updates → `broker-fill`, and the memory of what Kafka has acknowledged."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog

from closeflow.contracts.topics import BROKER_FILL
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType
from closeflow.kafka import Producer
from closeflow.kafka.broker_fill import broker_fill_record
from closeflow.kafka.producer import Acknowledged
from closeflow.telemetry.metrics import counter
from closeflow.telemetry.spans import Kind, begin, is_tracing

log = structlog.get_logger()

PUBLISHED: Final = counter("closeflow_gateway_published_total")

SERVICE: Final = "broker-gateway"
_REMEMBERED: Final = 50_000


class Memory:
    """What was published lately, so that a backfill does not repeat it every time. Forgetting only costs a repetition:
    readers de-duplicate."""

    def __init__(self, size: int = _REMEMBERED) -> None:
        self._size = size
        self._names: OrderedDict[str, None] = OrderedDict()
        self._ends: dict[tuple[str, int], int] = {}
        self._lost = False

    def knows(self, update: BrokerUpdate) -> bool:
        """Whether Kafka has it, as far as is remembered; a no costs a repetition."""
        return any(name in self._names for name in _names(update))

    def add(self, updates: Iterable[BrokerUpdate]) -> None:
        """Remember updates that Kafka has acknowledged, and forget the oldest beyond the size."""
        for update in updates:
            for name in _names(update):
                self._names[name] = None
                self._names.move_to_end(name)
        while len(self._names) > self._size:
            self._names.popitem(last=False)

    @property
    def ends(self) -> Mapping[tuple[str, int], int]:
        """By topic and partition, the highest offset that was acknowledged."""
        return dict(self._ends)

    def check(self, places: Iterable[Acknowledged], *, before: Mapping[tuple[str, int], int]) -> bool:
        """Whether the logs still had their newest records when these were acknowledged; `before` are the ends as they
        were when these were sent. A log that gives an offset again has lost records: nothing counts as published."""
        whole = True
        for topic, partition, offset in places:
            if 0 <= offset <= before.get((topic, partition), -1):
                whole = False
                self._ends[topic, partition] = offset
            self._ends[topic, partition] = max(offset, self._ends.get((topic, partition), offset))
        if not whole:
            self._names.clear()
            self._lost = True
        return whole

    def take_lost(self) -> bool:
        """Whether published records were lost since this was asked last."""
        lost, self._lost = self._lost, False
        return lost


def _names(update: BrokerUpdate) -> tuple[str, ...]:
    """An execution is known by its own id too, whichever feed brought it."""
    event = str(update.event_id)
    return (event,) if update.exec_id is None else (event, f"{update.exec_type}/{update.exec_id}")


def without_superseded(updates: Sequence[BrokerUpdate]) -> list[BrokerUpdate]:
    """Without what only says that an order is accepted where a later one of them states more of the same order: by the
    broker's sequence the reader would keep the later one alone."""
    newest: dict[tuple[str, str | None], int] = {}
    kept: list[BrokerUpdate] = []
    for update in reversed(updates):
        order = (update.client_order_id, update.broker_order_id)
        sequence = update.broker_seq if update.order_status is not None else None
        if not (_only_accepts(update) and sequence is not None and sequence < newest.get(order, sequence)):
            kept.append(update)
        if sequence is not None:
            newest[order] = max(sequence, newest.get(order, sequence))
    return kept[::-1]


def _only_accepts(update: BrokerUpdate) -> bool:
    accepts = update.exec_type in (ExecType.NEW, ExecType.ORDER_STATUS) and update.order_status is BrokerStatus.NEW
    return accepts and not update.cum_quantity and update.reason is None


class Outlet:
    """Updates that are given together are on their way together; those of one order keep their order."""

    def __init__(self, producer: Producer, memory: Memory) -> None:
        self._producer = producer
        self._memory = memory

    async def publish(self, updates: Sequence[BrokerUpdate]) -> None:
        """Returns when Kafka has them all. Any error means that some may be missing: ask the broker again."""
        span = begin("publish broker-fill", None, kind=Kind.PRODUCER)
        # The trace of the close that an update is about is not known here: its reader links the two.
        written_in = span.context.header() if is_tracing() and span.context.sampled else None
        told = [
            broker_fill_record(update, service=SERVICE, traceparent=written_in)
            for update in without_superseded(updates)
        ]
        span.attributes |= {
            "messaging.system": "kafka",
            "messaging.destination.name": BROKER_FILL,
            "messaging.operation.type": "send",
            "messaging.batch.message_count": len(told),
        }
        before = self._memory.ends
        try:
            places = await self._producer.publish_many(told)
        except Exception as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()
        if not self._memory.check(places, before=before):
            log.error("published_updates_lost")
        self._memory.add(updates)
        for update in updates:
            PUBLISHED.labels(update.source).inc()

    def take_lost(self) -> bool:
        """Whether Kafka lost what was published since this was asked last: all of it has to be asked for again."""
        return self._memory.take_lost()

    async def publish_news(self, updates: Iterable[BrokerUpdate]) -> int:
        """Publish what was not published lately; returns how many that were."""
        news = [update for update in updates if not self._memory.knows(update)]
        if news:
            await self.publish(news)
        return len(news)
