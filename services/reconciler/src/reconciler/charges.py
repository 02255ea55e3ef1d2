"""Commissions and fees that the broker lists by themselves, days after the trade: told once to `broker-fill`.

The list is the one of activities that are no trades. What of it charges for an execution that is booked, and is not
booked itself, is published until it is, ever rarer: so a record that Kafka loses is told again, and one that can never
be booked (its currency is another than the position's) does not fill the topic of dead letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time

import structlog

from closeflow.domain.ids import broker_update_id
from closeflow.domain.model import BrokerUpdate, ExecType, UpdateSource
from closeflow.domain.operator.non_trade_activity import ExecutionCharge, NonTrade
from closeflow.domain.text import decimal_text
from closeflow.kafka.producer import Producer
from closeflow.storage.core.engine import Database, database_now, transaction
from closeflow.storage.execution_charges import ChargedOrder, charged_orders, known_charges
from reconciler.jobs.ask_quiet_orders import publish

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ChargesTold:
    """When each charge that is not booked was published first and last, in this process; a new one begins again."""

    _first_and_last: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)

    def is_due(self, charge: str, now: datetime) -> bool:
        """The time between two doubles: it is as long as the charge has been told by then."""
        if charge not in self._first_and_last:
            return True
        first, last = self._first_and_last[charge]
        return now - last >= last - first

    def told(self, charges: Iterable[str], now: datetime) -> None:
        """These were published."""
        self._first_and_last |= {one: (self._first_and_last.get(one, (now,))[0], now) for one in charges}

    def booked(self, charges: Iterable[str]) -> None:
        """These need not be told again. (Not being listed says nothing: a long list is read in several cycles.)"""
        for one in charges:
            self._first_and_last.pop(one, None)


async def tell_charges(
    database: Database,
    producer: Producer,
    listed: Iterable[NonTrade],
    memory: ChargesTold,
    *,
    broker: str,
    account_id: str,
) -> int:
    """Publish those of the activities that charge for an execution of ours, are not booked and are due to be told;
    returns how many."""
    charges = {one.activity_id: one for one in listed if one.charge is not None}
    if not charges:
        return 0
    async with transaction(database) as tx:
        now = await database_now(tx)
        booked = await known_charges(tx, broker=broker, account_id=account_id, ids=list(charges))
        due = [one for name, one in charges.items() if name not in booked and memory.is_due(name, now)]
        named = {one.charge.broker_order_id for one in due if one.charge is not None}
        orders = await charged_orders(tx, account_id=account_id, broker_order_ids=named) if named else {}
    updates = charge_updates(due, orders, broker=broker, account_id=account_id, now=now)
    await publish(producer, updates)
    names = [one.exec_id for one in updates if one.exec_id is not None]
    memory.booked(booked)
    memory.told(names, now)
    if updates:
        log.info("charges_told", charges=names)
    return len(updates)


def charge_updates(
    activities: Sequence[NonTrade],
    orders: dict[str, ChargedOrder],
    *,
    broker: str,
    account_id: str,
    now: datetime,
) -> list[BrokerUpdate]:
    """What the activities say, as the broker's updates of their orders. One whose execution is not booked (yet) is left
    for the next cycle, and so is somebody else's."""
    found: list[BrokerUpdate] = []
    for one in activities:
        charge = one.charge
        order = orders.get(charge.broker_order_id) if charge is not None else None
        exec_id = _booked_as(order, charge) if charge is not None and order is not None else None
        if charge is None or order is None or exec_id is None:
            continue
        amounts = (decimal_text(charge.commission), decimal_text(charge.fees))
        update = BrokerUpdate(
            event_id=broker_update_id(broker, account_id, order.client_order_id, "charge", one.activity_id, *amounts),
            broker=broker,
            account_id=account_id,
            symbol=order.symbol,
            client_order_id=order.client_order_id,
            exec_type=ExecType.CHARGE,
            side=order.side,
            source=UpdateSource.BACKFILL,
            transact_time=charge.at or (datetime.combine(one.day, time(), UTC) if one.day is not None else now),
            received_at=now,
            broker_order_id=charge.broker_order_id,
            exec_id=one.activity_id,
            exec_ref_id=exec_id,
            commission=charge.commission,
            fees=charge.fees,
            currency=charge.currency,
            reason=one.description,
        )
        found.append(update)
    return found


def _booked_as(order: ChargedOrder, charge: ExecutionCharge) -> str | None:
    """The name under which the execution is booked. A list may put a time and `::` before the id of the stream."""
    stated = charge.exec_id.rpartition("::")[2]
    return next((booked for name, booked in order.executions.items() if name.rpartition("::")[2] == stated), None)
