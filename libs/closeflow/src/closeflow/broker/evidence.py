"""Ask the broker for the evidence about an order (rule R6); it only reads."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.domain.model import Order, SendKind
from closeflow.domain.sending.absence import Asked
from closeflow.domain.sending.broker_answers import Acknowledged, NotFound

CLOCKS_APART: Final = timedelta(days=1)
"""How far the broker's clock may be behind the one that dated the send, which may have been wrong then: if a fill
were not listed, its order would be taken for absent."""
MAX_PAGES: Final = 1000
HAS_IT: Final = "the broker has it: "


async def gather(broker: Broker, order: Order, *, at: datetime) -> Asked:
    """What the broker says of the order now. `at` is the database's time now. Raises BrokerUnavailable where it does
    not say enough."""
    sends = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT]
    executions = await _executions(broker, order, after=min(sends, default=order.created_at) - CLOCKS_APART)
    held = await broker.position(order.symbol)
    quantity_there = None
    match await broker.look_up(order.client_order_id):  # Last, so that it speaks for the latest moment.
        case NotFound():
            looked_up = None
        case Acknowledged(update):
            looked_up = f"{HAS_IT}{update.order_status or update.exec_type}"
            quantity_there = update.order_quantity
        case other:
            looked_up = f"the broker did not say: {other.reason}"
    return Asked(
        order=order, at=at, looked_up=looked_up, executions=executions, held=held, quantity_there=quantity_there
    )


async def _executions(broker: Broker, order: Order, *, after: datetime) -> tuple[str, ...]:
    """The ids of the order's executions; raises BrokerUnavailable also when there are too many to read them all."""
    found: list[str] = []
    page: str | None = None
    for _ in range(MAX_PAGES):
        listed = await broker.executions(after=after, page=page)
        if not listed.tell_of(order.symbol):
            raise BrokerUnavailable(
                f"it lists executions that cannot be read or named and may be of it: {', '.join(listed.left_out)}"
            )
        found += [
            str(one.exec_id) for one in listed.updates if one.client_order_id == order.client_order_id and one.exec_id
        ]
        page = listed.next_page
        if page is None:
            return tuple(found)
    raise BrokerUnavailable(f"it lists more than {MAX_PAGES} pages of executions since {after.isoformat()}")
