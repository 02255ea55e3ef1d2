"""Orders that are not done although their request is finished: asked about at the broker, and cancelled if they live.

T_unknown gave up on one, a bust gave one its life back, or a broker's acknowledgement came after all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Final, assert_never

import structlog

from closeflow.broker.protocol import Broker
from closeflow.domain import facts
from closeflow.domain.answers import Acknowledged, LookUpAnswer, NotAccepted, NotFound, NotSent, Unanswered
from closeflow.domain.model import BrokerStatus, BrokerUpdate, Incident
from closeflow.kafka.producer import Producer
from closeflow.storage.books import lock_books
from closeflow.storage.engine import Database, Transaction, retrying, transaction
from closeflow.storage.filling import database_now
from closeflow.storage.misfits import OutlivingOrder, close_outlived, outliving_orders
from closeflow.storage.reconciling import held_alone
from closeflow.storage.saving import report_incidents, save_books
from reconciler.orders import Pauses, publish

log = structlog.get_logger(__name__)

OUTLIVES: Final = "order_outlives_request"
_OVER: Final = frozenset(
    {BrokerStatus.FILLED, BrokerStatus.CANCELED, BrokerStatus.EXPIRED, BrokerStatus.REJECTED, BrokerStatus.REPLACED}
)


@dataclass(slots=True)
class EndOutlivingOrders:
    """Each is asked about again after a pause that doubles up to a cap; its cancel is asked for once, and sent by the
    order-submitter."""

    database: Database
    broker: Broker
    producer: Producer
    grace: timedelta
    budget: int
    pauses: Pauses = field(default_factory=Pauses)

    async def once(self) -> int:
        """Returns how many cancels were asked for."""
        async with held_alone(self.database, "end_outliving_orders") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        now = time.monotonic()
        async with transaction(self.database) as tx:
            await close_outlived(tx, kind=OUTLIVES, resolution="the order is done")
            found = await outliving_orders(
                tx,
                account_id=self.broker.account_id,
                grace=self.grace,
                excluding=self.pauses.not_before(now),
                budget=self.budget,
            )
        updates: list[BrokerUpdate] = []
        asked: list[tuple[OutlivingOrder, bool]] = []
        for order in found:
            self.pauses.asked(order.client_order_id, now)
            answer = await self.broker.look_up(order.client_order_id)
            if isinstance(answer, NotAccepted | NotSent | Unanswered):
                log.warning("broker_did_not_answer", client_order_id=order.client_order_id, reason=answer.reason)
                asked.append((order, False))
                break  # A broker in trouble is not helped by the rest of the questions.
            if isinstance(answer, Acknowledged):
                updates.append(answer.update)
            asked.append((order, _lives(answer)))
        await publish(self.producer, updates)
        return sum([await retrying(self.database, partial(self._end, order=one, lives=lives)) for one, lives in asked])

    async def _end(self, tx: Transaction, *, order: OutlivingOrder, lives: bool) -> bool:
        """Ask for the cancel of an order that the broker has, or stated before to have, and tell a person of it."""
        books = await lock_books(tx, position_ids=[order.position_id], request_ids=[order.close_request_id])
        book = books[order.position_id]
        found = book.orders.get(order.client_order_id)
        if found is None or facts.is_done(found) or book.requests[order.close_request_id].unfinished:
            return False
        request = book.requests[order.close_request_id]
        lives = lives or bool(facts.broker_statements(found))
        cancel = lives and found.cancel_requested_at is None
        if cancel:
            canceling = facts.derive(replace(found, cancel_requested_at=await database_now(tx)))
            orders = {**book.orders, canceling.client_order_id: canceling}
            await save_books(tx, changes=[(book, replace(book, orders=orders))])
            log.warning("outliving_order_canceled", client_order_id=order.client_order_id)
        detail = f"request {request.id} is {request.status} ({request.reason}) and its order is {found.status}: " + (
            "its cancel is asked for" if lives else "nobody knows whether the broker has it"
        )
        await report_incidents(tx, incidents=[_incident(order, detail)])
        return cancel


def _lives(answer: LookUpAnswer) -> bool:
    match answer:
        case Acknowledged(update):
            return update.order_status not in _OVER
        case NotFound() | NotAccepted() | NotSent() | Unanswered():
            return False
        case _:
            assert_never(answer)


def _incident(order: OutlivingOrder, detail: str) -> Incident:
    return Incident(
        kind=OUTLIVES,
        severity="critical",
        detail=detail,
        position_id=order.position_id,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
    )
