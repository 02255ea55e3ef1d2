"""Orders that are not done although their request is finished: asked about at the broker, and cancelled if they live.

T_unknown gave up on one, a bust gave one its life back, or a broker's acknowledgement came after all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import assert_never

import structlog

from closeflow.broker.asking import look_up_all
from closeflow.broker.protocol import Broker
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import OrderRef
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.broker_answers import (
    NOTHING_LEFT,
    Acknowledged,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Unanswered,
)
from closeflow.kafka.producer import Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core.engine import (
    Database,
    StatementError,
    Transaction,
    database_now,
    is_poison,
    retrying,
    transaction,
)
from closeflow.storage.incidents import report_incidents
from closeflow.storage.inconsistencies import close_orphan_incidents, orphan_orders
from reconciler.jobs.ask_quiet_orders import Pauses, Rest, publish

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class CancelOrphanOrders:
    """Each is asked about again after a pause that doubles up to a cap; its cancel is asked for once, and sent by the
    order-submitter."""

    database: Database
    broker: Broker
    producer: Producer
    grace: timedelta
    budget: int
    pauses: Pauses = field(default_factory=Pauses)
    rest: Rest = field(default_factory=Rest)

    async def once(self) -> int:
        """Returns how many cancels were asked for."""
        async with cycle_alone(self.database, "cancel_orphan_orders") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        now = time.monotonic()
        async with transaction(self.database) as tx:
            await close_orphan_incidents(tx, kind=IncidentKind.ORDER_OUTLIVES_REQUEST, resolution="the order is done")
            found = await orphan_orders(
                tx,
                account_id=self.broker.account_id,
                grace=self.grace,
                excluding=self.pauses.not_before(now),
                budget=self.budget,
            )
        answers = await self._ask([one.client_order_id for one in found], now)
        ended = 0
        for order in found:
            answer = answers.get(order.client_order_id)
            ended += await self._end_alone(order, lives=answer is not None and _lives(answer))
        # Afterwards, for what the database can do does not wait for Kafka.
        await publish(self.producer, [one.update for one in answers.values() if isinstance(one, Acknowledged)])
        return ended

    async def _ask(self, orders: Sequence[str], now: float) -> dict[str, LookUpAnswer]:
        """The answers there are; none while the broker wants no questions."""
        for order_id in orders:
            self.pauses.asked(order_id, now)
        answers = {} if self.rest.is_on(now) else await look_up_all(self.broker, orders)
        for order_id, answer in answers.items():
            if isinstance(answer, NotAccepted | NotSent | Unanswered):
                log.warning("broker_did_not_answer", client_order_id=order_id, reason=answer.reason)
            if isinstance(answer, NotAccepted):
                self.rest.extend(answer.retry_after_s, time.monotonic())
        return answers

    async def _end_alone(self, order: OrderRef, *, lives: bool) -> bool:
        """One that cannot be ended is told, and holds up no other."""
        try:
            return await retrying(self.database, partial(self._end, order=order, lives=lives))
        except (StatementError, MoveRefused) as error:
            if isinstance(error, StatementError) and not is_poison(error):
                raise
            log.error("outliving_order_not_ended", client_order_id=order.client_order_id, exc_info=error)
            detail = f"it cannot be ended: {str(error).partition(chr(10))[0]}"
            async with transaction(self.database) as tx:
                await report_incidents(tx, incidents=[about_order(order, IncidentKind.ORDER_OUTLIVES_REQUEST, detail)])
            return False

    async def _end(self, tx: Transaction, *, order: OrderRef, lives: bool) -> bool:
        """Ask for the cancel of an order that the broker has, or stated before to have, and tell a person of it."""
        books = await lock_books(tx, position_ids=[order.position_id], request_ids=[order.close_request_id])
        book = books[order.position_id]
        found = book.orders.get(order.client_order_id)
        if found is None or order_status.is_done(found) or book.requests[order.close_request_id].unfinished:
            return False
        request = book.requests[order.close_request_id]
        lives = lives or bool(order_status.broker_statements(found))
        cancel = lives and found.cancel_requested_at is None
        if cancel:
            canceling = order_status.derive(replace(found, cancel_requested_at=await database_now(tx)))
            orders = {**book.orders, canceling.client_order_id: canceling}
            await save_books(tx, changes=[(book, replace(book, orders=orders))])
            log.warning("outliving_order_canceled", client_order_id=order.client_order_id)
        detail = f"request {request.id} is {request.status} ({request.reason}) and its order is {found.status}: " + (
            "its cancel is asked for" if lives else "nobody knows whether the broker has it"
        )
        await report_incidents(tx, incidents=[about_order(order, IncidentKind.ORDER_OUTLIVES_REQUEST, detail)])
        return cancel


def _lives(answer: LookUpAnswer) -> bool:
    match answer:
        case Acknowledged(update):
            return update.order_status not in NOTHING_LEFT
        case NotFound() | NotAccepted() | NotSent() | Unanswered():
            return False
        case _:
            assert_never(answer)
