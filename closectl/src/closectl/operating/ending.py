"""End an order that is replaced or split at the broker, once the broker was asked what became of it."""

from __future__ import annotations

from datetime import datetime

from closectl.broker import Account
from closectl.operating.asking import HAS_IT, ask_about
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import Book, Order
from closeflow.domain.operator.adjust import end_order
from closeflow.domain.operator.requests import Done, Outcome, Refused
from closeflow.operating.acting import NotThere, Operator, OperatorAction, lock_one, write
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying


async def end_one_order(
    database: Database, account: Account | str, client_order_id: str, operator: Operator, *, dry: bool
) -> Outcome:
    """Ask the broker what became of the order, then end it under the locks. Raises NotThere."""
    parsed = parse_client_order_id(client_order_id)
    act = OperatorAction(operator, "end_order", client_order_id)

    async def load(tx: Transaction) -> tuple[Book, Order]:
        book = await lock_one(tx, operator, request_id=parsed[0]) if parsed is not None else None
        if book is None or client_order_id not in book.orders:
            raise NotThere(f"there is no order {client_order_id}; `closectl show` names the orders of a close")
        return book, book.orders[client_order_id]

    async def look(tx: Transaction) -> tuple[Order, datetime]:
        return (await load(tx))[1], await database_now(tx)

    order, at = await retrying(database, look)
    asked = await ask_about(account, order, at=at)
    if isinstance(asked, str):
        return Refused((asked,))
    said = asked.looked_up and asked.looked_up.removeprefix(HAS_IT)

    async def work(tx: Transaction) -> Outcome:
        before, known = await load(tx)
        there = asked.quantity_there
        outcome = end_order(before, known, at_broker=said, quantity_there=there, now=await database_now(tx))
        if isinstance(outcome, Done) and not dry:
            await write(tx, act, before, outcome, told={"at_broker": said or "not found"})
        return outcome

    return await retrying(database, work)
