"""How an accepted order goes on: a function of the order, its position, the quote and the time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import uuid4

from .behaviour import Step
from .numbers import plain, rfc3339
from .orders import PAUSED, ZERO, Execution, Order, filled, moved, order_json
from .positions import Position, after_fill
from .quotes import Quote, marketable_price
from .store import Change


@dataclass(frozen=True, slots=True)
class Notice:
    """One trade update: the order as it was right after the event."""

    event: str
    order: Order
    execution: Execution | None
    position_qty: Decimal
    at_us: int


@dataclass(slots=True)
class Progress:
    """What happened to one order so far."""

    order: Order
    position: Position | None = None
    executions: list[Execution] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    split_by: Decimal | None = None

    @property
    def moved(self) -> bool:
        """Whether the position is another one now."""
        return bool(self.executions) or self.split_by is not None

    def change(self) -> Change:
        """What is to be saved."""
        positions = {self.position.symbol: self.position} if self.position and self.moved else {}
        return Change(orders={self.order.id: self.order}, executions=self.executions, positions=positions)

    def note(self, event: str, at_us: int, execution: Execution | None = None) -> None:
        """Tell the stream of the order as it is now; `at_us` is in microseconds since 1970."""
        held = self.position.qty if self.position else ZERO
        self.notices.append(Notice(event, self.order, execution, held, at_us))

    def move(self, status: str, at_us: int) -> None:
        """Give the order its next status, and tell of it."""
        self.order = moved(self.order, status, at_us)
        self.note(status, at_us)

    def split(self, ratio: Decimal) -> None:
        """Multiply what rests and what is held, as a broker does overnight."""
        order = self.order
        price = order.ticket.limit_price / ratio if order.ticket.limit_price is not None else None
        ticket = replace(order.ticket, qty=order.ticket.qty * ratio, limit_price=price)
        self.order = replace(order, ticket=ticket, filled_qty=order.filled_qty * ratio, filled_value=order.filled_value)
        if self.position is not None:
            average = self.position.avg_entry_price / ratio
            self.position = replace(self.position, qty=self.position.qty * ratio, avg_entry_price=average)
        self.split_by = ratio

    def fill(self, qty: Decimal, price: Decimal, at_us: int) -> None:
        """Execute so much at a price: order, position and execution."""
        ticket = self.order.ticket
        self.order = filled(self.order, qty=qty, price=price, at_us=at_us)
        self.position = after_fill(self.position, ticket.symbol, ticket.asset_class, ticket.side, qty, price)
        execution = Execution(
            id=str(uuid4()),
            order_id=self.order.id,
            symbol=ticket.symbol,
            side=ticket.side,
            qty=qty,
            price=price,
            cum_qty=self.order.filled_qty,
            leaves_qty=self.order.leaves_qty,
            order_status=self.order.status,
            position_qty=self.position.qty,
            at_us=at_us,
        )
        self.executions.append(execution)
        self.note("partial_fill" if self.order.is_open else "fill", at_us, execution)


def progressed(
    order: Order,
    position: Position | None,
    *,
    quote: Quote | None,
    market_open: bool,
    now_us: int,
    next_us: Callable[[], int],
) -> Progress:
    """Everything that is due for the order at `now_us`; `next_us` gives each move its own time."""
    progress = Progress(order, position)
    if order.status == "pending_new":
        progress.move("new" if market_open else "accepted", next_us())
    elif order.status == "accepted" and market_open:
        progress.move("new", next_us())
    while progress.order.is_open:
        current = progress.order
        if current.cancel_due_us is not None and current.cancel_due_us <= now_us:
            progress.move("canceled", next_us())
        elif not market_open:
            break
        elif current.steps is None:
            _match(progress, quote, next_us)
            break
        elif current.steps and current.due_us is not None and current.due_us <= now_us:
            _run_step(progress, quote, now_us, next_us)
        else:
            break
    return progress


def _match(progress: Progress, quote: Quote | None, next_us: Callable[[], int]) -> None:
    order = progress.order
    if order.status in PAUSED:
        return
    price = marketable_price(order, quote) if quote else None
    if price is not None:
        progress.fill(order.leaves_qty, price, next_us())
    elif order.ticket.time_in_force in ("ioc", "fok"):
        progress.move("canceled", next_us())


def _run_step(progress: Progress, quote: Quote | None, now_us: int, next_us: Callable[[], int]) -> None:
    order = progress.order
    step, *rest = order.steps or ()
    due_us = now_us + int(rest[0].after_s * 1_000_000) if rest else None
    progress.order = replace(order, steps=tuple(rest), due_us=due_us)
    match step.do:
        case "fill":
            qty = min(step.quantity or order.leaves_qty, order.leaves_qty)
            progress.fill(qty, _scripted_price(order, step, quote), next_us())
        case "cancel":
            progress.move("canceled", next_us())
        case "expire":
            progress.move("expired", next_us())
        case "reject":
            progress.move("rejected", next_us())
        case "replace":
            progress.move("replaced", next_us())
        case "split":
            progress.split(step.quantity or Decimal(2))
        case "suspend":
            progress.move("suspended", next_us())
        case "done_for_day":
            progress.move("done_for_day", next_us())


def _scripted_price(order: Order, step: Step, quote: Quote | None) -> Decimal:
    if step.price is not None:
        return step.price
    touch = marketable_price(order, quote) if quote else None
    return touch or order.ticket.limit_price or (quote.mid if quote else Decimal(1))


def update_json(notice: Notice) -> dict[str, object]:
    """The `data` of a trade update. Every event has an execution id, as at Alpaca; only fills and what reverses them
    name an execution. `previous_execution_id` and `reason` are those of Alpaca's broker events."""
    body: dict[str, object] = {
        "event": notice.event,
        "event_id": str(notice.at_us),
        "timestamp": rfc3339(notice.at_us),
        "order": order_json(notice.order),
    }
    shown = notice.order.behaviour.shown.update
    if notice.execution is None:
        return body | {"execution_id": str(uuid4())} | shown
    body |= {
        "execution_id": notice.execution.id,
        "price": plain(notice.execution.price),
        "qty": plain(notice.execution.qty),
        "position_qty": plain(notice.position_qty),
    }
    if notice.execution.ref_id is not None:
        body |= {"previous_execution_id": notice.execution.ref_id}
    if notice.execution.kind == "bust":
        body |= {"reason": "TRADE_BUST"}
    return body | shown
