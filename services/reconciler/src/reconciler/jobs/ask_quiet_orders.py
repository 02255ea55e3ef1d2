"""Ask the broker about orders it has been silent on.

What it says goes to `broker-fill` like everything else it says; nothing of it is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from closeflow.broker.asking import look_up_all
from closeflow.broker.protocol import Broker
from closeflow.clock import monotonic, timeout
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import BrokerUpdate, Incident
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Unanswered,
)
from closeflow.kafka.broker_fill import broker_fill_record
from closeflow.kafka.producer import Outgoing, Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.due_work import quiet_orders
from closeflow.storage.incidents import report_incidents

log = structlog.get_logger(__name__)

PUBLISH_WITHIN_S: Final = 30.0


async def publish(producer: Producer, updates: Sequence[BrokerUpdate]) -> None:
    """Returns when Kafka has them all; see `acknowledged`."""
    await acknowledged(producer, [broker_fill_record(update, service="reconciler") for update in updates])


async def acknowledged(producer: Producer, records: Sequence[Outgoing], *, within_s: float = PUBLISH_WITHIN_S) -> None:
    """Returns when Kafka has the records; raises TimeoutError when that takes too long, so that whoever holds a lock
    meanwhile gives it up. They may be published none the less: whoever reads them knows repetitions."""
    async with timeout(within_s):
        await producer.publish_many(records)


@dataclass(slots=True)
class Pauses:
    """When each order may be asked about again: after a pause that doubles from `first_s` up to `cap_s`."""

    first_s: float = 5.0
    cap_s: float = 60.0
    _next: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Client order id to (monotonic time of the next question, pause)."""

    def asked(self, client_order_id: str, now: float) -> None:
        """It was asked about `now` (monotonic seconds); the pause before the next time doubles up to the cap."""
        _, pause = self._next.get(client_order_id, (now, self.first_s / 2))
        pause = min(self.cap_s, pause * 2)
        self._next[client_order_id] = (now + pause, pause)

    def not_before(self, now: float) -> list[str]:
        """The orders that are not to be asked about yet. One whose pause has been over for a whole cap has ended or
        been heard of, and is forgotten."""
        self._next = {order: (due, pause) for order, (due, pause) in self._next.items() if due > now - self.cap_s}
        return [order for order, (due, _) in self._next.items() if due > now]


@dataclass(slots=True)
class Rest:
    """Until when the broker wants no questions: its rate limit is one for all that is asked about an account."""

    _until: float = 0.0

    def extend(self, retry_after_s: float | None, now: float) -> None:
        """Ask nothing for so long; a longer rest stays."""
        self._until = max(self._until, now + (retry_after_s or 0.0))

    def is_on(self, now: float) -> bool:
        """Whether the broker has asked for a pause that is not over."""
        return now < self._until


async def ask(broker: Broker, client_order_ids: Sequence[str], rest: Rest) -> dict[str, LookUpAnswer]:
    """The answers there are; none while the broker wants no questions."""
    answers = {} if rest.is_on(monotonic()) else await look_up_all(broker, client_order_ids)
    for client_order_id, answer in answers.items():
        if isinstance(answer, NotAccepted | NotSent | Unanswered):
            log.warning("broker_did_not_answer", client_order_id=client_order_id, reason=answer.reason)
        if isinstance(answer, NotAccepted):
            rest.extend(answer.retry_after_s, monotonic())
    return answers


def stated(answers: Mapping[str, LookUpAnswer]) -> list[BrokerUpdate]:
    """What the broker says of the orders that it has."""
    return [one.update for one in answers.values() if isinstance(one, Acknowledged)]


def denied(answers: Mapping[str, LookUpAnswer]) -> list[Incident]:
    """One for each acknowledged order that the broker does not find."""
    detail = "the broker acknowledged this order and now says that it does not exist"
    kind = IncidentKind.ACKNOWLEDGED_ORDER_NOT_FOUND
    gone = (client_order_id for client_order_id, one in answers.items() if isinstance(one, NotFound))
    return [about(kind, detail, client_order_id=client_order_id) for client_order_id in gone]


@dataclass(slots=True)
class AskQuietOrders:
    """Look up acknowledged orders that nothing was heard of, each again after a pause that doubles up to a cap."""

    database: Database
    broker: Broker
    producer: Producer
    quiet_after: timedelta
    budget: int
    pauses: Pauses = field(default_factory=Pauses)
    rest: Rest = field(default_factory=Rest)

    async def once(self) -> int:
        """Ask about at most `budget` orders; returns how many answers were published."""
        async with cycle_alone(self.database, "ask_quiet_orders") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        now = monotonic()
        if self.rest.is_on(now):
            return 0
        async with transaction(self.database) as tx:
            quiet = await quiet_orders(
                tx,
                account_id=self.broker.account_id,
                quiet_after=self.quiet_after,
                excluding=self.pauses.not_before(now),
                budget=self.budget,
            )
        answers = await ask(self.broker, [order.client_order_id for order in quiet], self.rest)
        for client_order_id in answers:
            self.pauses.asked(client_order_id, now)
        updates, gone = stated(answers), denied(answers)
        await publish(self.producer, updates)
        if gone:
            async with transaction(self.database) as tx:
                await report_incidents(tx, incidents=gone)
        return len(updates)
