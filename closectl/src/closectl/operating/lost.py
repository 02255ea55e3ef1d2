"""Declare orders lost on the evidence of rule R6: one (O18, O19), or all that keep a position from being clear (P8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from closectl.broker import Account
from closectl.operating.asking import ask_about
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import Book, Order
from closeflow.domain.operator.declare_lost import declare_lost
from closeflow.domain.operator.requests import Done, Outcome
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.absence import Asked, Point, evidence
from closeflow.operating.acting import NotThere, Operator, OperatorAction, lock_one, write
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.orders_in_doubt import load_known

Gathered = Mapping[str, tuple[Point, ...]]
Load = Callable[[Transaction], Awaitable[Book]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The evidence by client order id, and what came of it; a dry look shows what would."""

    evidence: Gathered
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """Asks the broker first, without locks, then decides under them on what is true by then."""

    database: Database
    account: Account | str
    within: timedelta

    async def order(self, client_order_id: str, operator: Operator, *, dry: bool) -> Judged:
        """Declare one order lost. Raises NotThere."""
        parsed = parse_client_order_id(client_order_id)
        absent = f"there is no order {client_order_id}; `closectl show` names the orders of a close"
        if parsed is None:
            raise NotThere(absent)
        act = OperatorAction(operator, "declare_lost", client_order_id)

        async def load(tx: Transaction) -> Book:
            book = await lock_one(tx, operator, request_id=parsed[0])
            if client_order_id not in book.orders:
                raise NotThere(absent)
            return book

        return await self._judge(act, load, only=client_order_id, dry=dry)

    async def position(self, position_id: int, operator: Operator, *, dry: bool) -> Judged:
        """Declare every order lost that keeps a position from being clear (P8). Raises NotThere."""
        act = OperatorAction(operator, "override_exposure", str(position_id))
        return await self._judge(act, lambda tx: lock_one(tx, operator, position_id=position_id), only=None, dry=dry)

    async def _judge(self, act: OperatorAction, load: Load, *, only: str | None, dry: bool) -> Judged:
        async def look(tx: Transaction) -> tuple[datetime, list[Order]]:
            book = await load(tx)
            return await database_now(tx), _in_doubt(book, only)

        at, orders = await retrying(self.database, look)
        asked = {one.client_order_id: await ask_about(self.account, one, at=at) for one in orders}

        async def work(tx: Transaction) -> Judged:
            book = await load(tx)
            gathered, now = await self._gather(tx, book, asked, only), await database_now(tx)
            outcome = declare_lost(book, gathered, reason=act.operator.reason, now=now, only=only)
            if isinstance(outcome, Done) and not dry:
                told = {name: [f"{one.name}: {one.detail}" for one in points] for name, points in gathered.items()}
                await write(tx, act, book, outcome, told={"evidence": told})
            return Judged(evidence=gathered, outcome=outcome)

        return await retrying(self.database, work)

    async def _gather(
        self, tx: Transaction, book: Book, asked: Mapping[str, Asked | str], only: str | None
    ) -> Gathered:
        now = await database_now(tx)
        gathered: dict[str, tuple[Point, ...]] = {}
        for order in _in_doubt(book, only):
            known = await load_known(tx, order=order)
            answer = asked.get(order.client_order_id, "it came up meanwhile; ask again")
            gathered[order.client_order_id] = evidence(order, answer, known, now=now, within=self.within)
        return gathered


def _in_doubt(book: Book, only: str | None) -> list[Order]:
    if only is not None:
        return [book.orders[only]]
    return sorted(
        (order for order in book.orders.values() if not order_status.is_settled(order)),
        key=lambda one: one.client_order_id,
    )
