"""Parked records whose order, request or values are known by now go back through their topic, the one door.

Published first and released then, so a crash in between publishes them once more: an event that was applied is known
by its receipt, an attempt that has its order is not planned again. What this release can read, a consumer of an older
one may not: it parks the record again, which then waits twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from closeflow.contracts.codec import Undecodable, UnknownValue, decode
from closeflow.contracts.topics import BROKER_FILL, SUBMIT_ORDER, TOPIC_MODELS
from closeflow.domain.ids import parse_client_order_id
from closeflow.kafka.producer import Outgoing, Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, Transaction, retrying, transaction
from closeflow.storage.parked_records import (
    DueRecord,
    due_submits,
    due_unknown_values,
    due_updates,
    release,
    unknown_values,
)
from reconciler.jobs.ask_quiet_orders import acknowledged

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReleaseParked:
    """The job; `once` is one cycle."""

    database: Database
    producer: Producer
    budget: int

    async def once(self) -> int:
        """Returns how many records were published again."""
        async with cycle_alone(self.database, "release_parked") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        async with transaction(self.database) as tx:
            updates = await due_updates(tx, topic=BROKER_FILL, budget=self.budget)
            submits = await due_submits(tx, topic=SUBMIT_ORDER, budget=self.budget)
            known = [one for one in await unknown_values(tx, budget=self.budget) if _is_known(one)]
            newer = await due_unknown_values(tx, known=known, budget=self.budget)
        due = [*updates, *submits, *newer]
        if not due:
            return 0
        await acknowledged(self.producer, [_again(one) for one in due])
        orders = {one.client_order_id for one in updates if one.client_order_id}
        named = (parse_client_order_id(one.client_order_id or "") for one in submits)
        requests = {one[0] for one in named if one is not None}

        async def work(tx: Transaction) -> None:
            await release(tx, records=due, orders=orders, requests=requests)

        await retrying(self.database, work)
        for one in due:
            log.info(
                "parked_record_released",
                topic=one.topic,
                partition=one.partition,
                offset=one.offset,
                client_order_id=one.client_order_id,
            )
        return len(due)


def _is_known(one: DueRecord) -> bool:
    """Whether its consumer would not park it again. What is wrong with it otherwise, the consumer finds and tells."""
    try:
        decode(TOPIC_MODELS[one.topic], one.value, _headers(one))
    except UnknownValue:
        return False
    except Undecodable:
        return True
    return True


def _again(one: DueRecord) -> Outgoing:
    return Outgoing(topic=one.topic, key=one.key, value=one.value, headers=_headers(one))


def _headers(one: DueRecord) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode()) for name, value in one.headers.items())
