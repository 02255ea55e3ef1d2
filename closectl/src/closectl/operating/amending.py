"""Adjust a position from outside (P13), and name a fill that the broker's feeds did not (rule R4)."""

from __future__ import annotations

from decimal import Decimal

from closectl.operating.acting import Deed, NotThere, lock_one, write
from closeflow.domain.amend import Adjustment, Fill, adjust, name_fill
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.operate import Done, Outcome
from closeflow.storage.engine import Database, Transaction, retrying
from closeflow.storage.filling import database_now
from closeflow.storage.operating import insert_adjustment, last_adjustment, order_of_execution


async def adjust_position(
    database: Database, position_id: int, adjustment: Adjustment, *, expected: Decimal | None, dry: bool
) -> Outcome:
    """Append to the adjustments and settle, in one transaction. Raises NotThere."""
    deed = Deed(by=adjustment.by, action="adjust", subject=str(position_id), reason=adjustment.reason)

    async def work(tx: Transaction) -> Outcome:
        before = await lock_one(tx, position_id=position_id)
        last, now = await last_adjustment(tx, position_id=position_id), await database_now(tx)
        outcome = adjust(before, adjustment, expected=expected, last=last, now=now)
        if isinstance(outcome, Done) and not dry:
            await insert_adjustment(tx, position_id=position_id, adjustment=adjustment, at=now)
            await write(tx, deed, before, outcome, told={"delta": adjustment.delta})
        return outcome

    return await retrying(database, work)


async def name_execution(
    database: Database, client_order_id: str, fill: Fill, *, by: str, reason: str, dry: bool
) -> Outcome:
    """Book an execution that closes a gap. Raises NotThere."""
    parsed = parse_client_order_id(client_order_id)
    absent = f"there is no order {client_order_id}; `closectl show` names the orders of a close"
    deed = Deed(by=by, action="name_execution", subject=client_order_id, reason=reason)

    async def work(tx: Transaction) -> Outcome:
        if parsed is None:
            raise NotThere(absent)
        before = await lock_one(tx, request_id=parsed[0])
        order = before.orders.get(client_order_id)
        if order is None:
            raise NotThere(absent)
        taken_by = await order_of_execution(tx, broker=fill.broker, account_id=order.account_id, exec_id=fill.exec_id)
        outcome = name_fill(before, order, fill, taken_by=taken_by, now=await database_now(tx))
        if isinstance(outcome, Done) and not dry:
            await write(tx, deed, before, outcome, told={"exec_id": fill.exec_id})
        return outcome

    return await retrying(database, work)
