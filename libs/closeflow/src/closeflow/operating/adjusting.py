"""Adjust a position from outside (P13), and name a fill that the broker's feeds did not (rule R4)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.operator.adjust import Adjustment, Ending, Fill, adjust, end_position, name_fill
from closeflow.domain.operator.requests import Done, Outcome
from closeflow.operating.acting import NotThere, Operator, OperatorAction, lock_one, write
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.orders_in_doubt import order_of_execution
from closeflow.storage.position_adjustments import insert_adjustment, last_adjustment


async def adjust_position(
    database: Database, position_id: int, delta: Decimal, operator: Operator, *, expected: Decimal | None, dry: bool
) -> Outcome:
    """Append to the adjustments and conclude, in one transaction. Raises NotThere."""
    adjustment = Adjustment(delta=delta, reason=operator.reason, by=operator.by)
    act = OperatorAction(operator, "adjust", str(position_id))

    async def work(tx: Transaction) -> Outcome:
        before = await lock_one(tx, operator, position_id=position_id)
        last, now = await last_adjustment(tx, position_id=position_id), await database_now(tx)
        outcome = adjust(before, adjustment, expected=expected, last=last, now=now)
        if isinstance(outcome, Done) and not dry:
            await insert_adjustment(tx, position_id=position_id, adjustment=adjustment, at=now)
            await write(tx, act, before, outcome, told={"delta": adjustment.delta})
        return outcome

    return await retrying(database, work)


async def end_position_(
    database: Database, position_id: int, ending: Ending, seen: Decimal, operator: Operator, *, dry: bool
) -> Outcome:
    """Adjust it to zero for what happened at the broker. Raises NotThere."""
    operator = replace(operator, reason=f"{ending}: {operator.reason}")
    given = Adjustment(delta=-seen, reason=operator.reason, by=operator.by)
    act = OperatorAction(operator, "end_position", str(position_id))

    async def work(tx: Transaction) -> Outcome:
        before = await lock_one(tx, operator, position_id=position_id)
        last, now = await last_adjustment(tx, position_id=position_id), await database_now(tx)
        outcome = end_position(before, ending, given, last=last, now=now)
        if isinstance(outcome, Done) and not dry:
            await insert_adjustment(tx, position_id=position_id, adjustment=given, at=now)
            await write(tx, act, before, outcome, told={"delta": given.delta})
        return outcome

    return await retrying(database, work)


async def name_execution(
    database: Database, client_order_id: str, fill: Fill, operator: Operator, *, dry: bool
) -> Outcome:
    """Book an execution that closes a gap. Raises NotThere."""
    parsed = parse_client_order_id(client_order_id)
    absent = f"there is no order {client_order_id}; `closectl show` names the orders of a close"
    act = OperatorAction(operator, "name_execution", client_order_id)

    async def work(tx: Transaction) -> Outcome:
        if parsed is None:
            raise NotThere(absent)
        before = await lock_one(tx, operator, request_id=parsed[0])
        order = before.orders.get(client_order_id)
        if order is None:
            raise NotThere(absent)
        taken_by = await order_of_execution(tx, broker=fill.broker, account_id=order.account_id, exec_id=fill.exec_id)
        outcome = name_fill(before, order, fill, taken_by=taken_by, now=await database_now(tx))
        if isinstance(outcome, Done) and not dry:
            await write(tx, act, before, outcome, told={"exec_id": fill.exec_id})
        return outcome

    return await retrying(database, work)
