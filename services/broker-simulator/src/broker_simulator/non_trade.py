"""Non-trade activities: what this broker does to a holding without an order, and how it lists that.

Alpaca documents OPEXC, OPASN and OPEXP with the signed change of the holding in `qty`, a date without a time, and an id
that begins with a time of its own.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import uuid4

from pydantic import Field, TypeAdapter

from .behaviour import Spec
from .numbers import plain
from .orders import Execution
from .positions import Position


class NonTrade(Spec):
    """What happens: `quantity` is added to the holding of `symbol`, unless `moves` is false, and `fields` are shown in
    place of what is listed."""

    activity_type: str
    symbol: str
    quantity: Decimal
    date: str | None = None
    moves: bool = True
    fields: dict[str, str | None] = Field(default_factory=dict)


def charge_of(execution: Execution, activity_type: str, amount: Decimal) -> NonTrade:
    """A fee or commission for one execution. Alpaca documents FEE with neither order nor execution: that both are named
    is an assumption, without which a charge belongs to nothing but the day."""
    fields: dict[str, str | None] = {
        "net_amount": plain(-amount),
        "order_id": execution.order_id,
        "execution_id": execution.id,
        "description": f"{activity_type} of execution {execution.id}",
    }
    return NonTrade(
        activity_type=activity_type, symbol=execution.symbol, quantity=Decimal(0), moves=False, fields=fields
    )


LISTED: Final = TypeAdapter(list[dict[str, str | None]])


def activity_of(done: NonTrade, at_us: int) -> dict[str, str | None]:
    """As the broker lists it, today if it has no date."""
    at = datetime.fromtimestamp(at_us / 1_000_000, UTC)
    return {
        "id": f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}::{uuid4()}",
        "activity_type": done.activity_type,
        "date": done.date or f"{at:%Y-%m-%d}",
        "net_amount": "0",
        "symbol": done.symbol,
        "qty": plain(done.quantity),
        "description": f"{done.activity_type} of {done.symbol}",
        "status": "executed",
        **done.fields,
    }


def after(position: Position, done: NonTrade) -> Position:
    """The holding after it; its quantity may be zero."""
    return Position(position.symbol, position.asset_class, position.qty + done.quantity, position.avg_entry_price)


def page_of(
    listed: list[dict[str, str | None]], *, after_day: str | None, page_token: str | None, page_size: int
) -> list[dict[str, str | None]]:
    """One page in the order of their booking; the next begins after the last id of this one."""
    found = [one for one in listed if after_day is None or (one["date"] or "") >= after_day]
    ids = [one["id"] for one in found]
    start = ids.index(page_token) + 1 if page_token in ids else 0
    return found[start : start + page_size]
