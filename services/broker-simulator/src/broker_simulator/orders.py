"""Orders and executions as this broker keeps them, their moves, and Alpaca's JSON of them."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal

from .assets import AssetClass, asset_id
from .behaviour import ORDINARY, Behaviour, Step
from .numbers import plain, rfc3339, rfc3339_or_none

Side = Literal["buy", "sell"]
ExecutionKind = Literal["fill", "bust", "correct"]
TERMINAL: Final = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
# Such an order lives, but is not executed further by itself.
PAUSED: Final = frozenset({"suspended", "done_for_day"})
ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A valid order request."""

    client_order_id: str
    symbol: str
    asset_class: AssetClass
    side: Side
    qty: Decimal
    type: Literal["market", "limit"]
    time_in_force: str
    limit_price: Decimal | None
    position_intent: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """`updated_us` rises strictly with every move of the order; it is what clients take as its sequence.

    `steps` is what the script has still to do (None: matched against the quote), the first of them at `due_us`.
    """

    id: str
    ticket: Ticket
    submitted_us: int
    updated_us: int
    visible_us: int
    behaviour: Behaviour = ORDINARY
    status: str = "pending_new"
    filled_qty: Decimal = ZERO
    filled_value: Decimal = ZERO
    steps: tuple[Step, ...] | None = None
    due_us: int | None = None
    cancel_due_us: int | None = None
    cancels_refused: int = 0
    filled_us: int | None = None
    canceled_us: int | None = None
    expired_us: int | None = None
    failed_us: int | None = None

    @property
    def leaves_qty(self) -> Decimal:
        """FIX LeavesQty (151), also of an order that is over."""
        return max(ZERO, self.ticket.qty - self.filled_qty)

    @property
    def is_open(self) -> bool:
        """Whether it may still fill or be cancelled."""
        return self.status not in TERMINAL


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill, or a bust or correction of the one that `ref_id` names (`broker_simulator.reversals`).

    `position_qty` is the account's signed quantity after it. A bust's `qty` and `price` are those it takes back.
    """

    id: str
    order_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    cum_qty: Decimal
    leaves_qty: Decimal
    order_status: str
    position_qty: Decimal
    at_us: int
    kind: ExecutionKind = "fill"
    ref_id: str | None = None


def filled(order: Order, *, qty: Decimal, price: Decimal, at_us: int) -> Order:
    """The order after one more fill; `qty` must not exceed what is left. A pending cancel stays pending."""
    cum = order.filled_qty + qty
    done = cum >= order.ticket.qty
    pending = order.status == "pending_cancel"
    return replace(
        order,
        status="filled" if done else "pending_cancel" if pending else "partially_filled",
        filled_qty=cum,
        filled_value=order.filled_value + qty * price,
        updated_us=at_us,
        filled_us=at_us if done else order.filled_us,
        steps=() if done else order.steps,
        due_us=None if done else order.due_us,
        cancel_due_us=None if done else order.cancel_due_us,
    )


def moved(order: Order, status: str, at_us: int) -> Order:
    """The order in another status; terminal ones get their time and lose what was still scripted."""
    changed = replace(order, status=status, updated_us=at_us)
    match status:
        case "canceled":
            return replace(changed, canceled_us=at_us, steps=(), due_us=None, cancel_due_us=None)
        case "expired":
            return replace(changed, expired_us=at_us, steps=(), due_us=None, cancel_due_us=None)
        case "replaced":
            return replace(changed, steps=(), due_us=None, cancel_due_us=None)
        case "rejected":
            return replace(changed, failed_us=at_us, steps=(), due_us=None, cancel_due_us=None)
        case _:
            return changed


def order_json(order: Order) -> dict[str, object]:
    """The order as Alpaca's routes and stream show it."""
    ticket = order.ticket
    average = None
    if order.filled_qty:
        average = plain((order.filled_value / order.filled_qty).quantize(Decimal("0.000000001")))
    submitted = rfc3339(order.submitted_us)
    body: dict[str, object] = {
        "id": order.id,
        "client_order_id": ticket.client_order_id,
        "created_at": submitted,
        "updated_at": rfc3339(order.updated_us),
        "submitted_at": submitted,
        "filled_at": rfc3339_or_none(order.filled_us),
        "expired_at": rfc3339_or_none(order.expired_us),
        "canceled_at": rfc3339_or_none(order.canceled_us),
        "failed_at": rfc3339_or_none(order.failed_us),
        "replaced_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": asset_id(ticket.symbol),
        "symbol": ticket.symbol,
        "asset_class": ticket.asset_class,
        "notional": None,
        "qty": plain(ticket.qty),
        "filled_qty": plain(order.filled_qty),
        "filled_avg_price": average,
        "order_class": "simple",
        "order_type": ticket.type,
        "type": ticket.type,
        "side": ticket.side,
        "position_intent": ticket.position_intent,
        "time_in_force": ticket.time_in_force,
        "limit_price": None if ticket.limit_price is None else plain(ticket.limit_price),
        "stop_price": None,
        "status": order.status,
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "subtag": None,
        "source": None,
    }
    return body | order.behaviour.shown.order
