"""Ask the broker for the evidence about an order (rule R6), over a connection of its own."""

from __future__ import annotations

from datetime import datetime

from closectl.broker import Account, make_broker
from closeflow.broker.evidence import HAS_IT, gather
from closeflow.broker.protocol import BrokerUnavailable
from closeflow.domain.model import Order
from closeflow.domain.sending.absence import Asked

__all__ = ["HAS_IT", "ask_about"]


async def ask_about(account: Account | str, order: Order, *, at: datetime) -> Asked | str:
    """What the broker says of the order, or why it said nothing. `at` is the database's time now."""
    if isinstance(account, str):
        return f"settings are {account}"
    if account.account_id != order.account_id:
        return f"the order is of account {order.account_id}, the settings are for {account.account_id}"
    broker = make_broker(account)
    try:
        return await gather(broker, order, at=at)
    except BrokerUnavailable as error:
        return f"{account.url} did not answer: {error.reason}"
    finally:
        await broker.aclose()
