"""The broker itself: takes orders, executes them by script or against the quote, cancels them, and tells the stream.

Runs on one event loop. Every thing that happens is one synchronous function: it decides, commits, and only then changes
memory, arms timers and publishes. So nothing that a client can see is ever ahead of the disk.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import uuid4

import structlog

from .behaviour import AcceptCancel, AcceptLate, Answer, Behaviour, RefuseCancel, Reject, steps_of
from .book import Book
from .conduct import Conduct
from .errors import (
    Refusal,
    duplicate_client_order_id,
    insufficient_quantity,
    not_cancelable,
    order_not_found,
    unprocessable,
)
from .execution import Progress, progressed, update_json
from .intake import client_order_id_of, read_fields, read_ticket
from .market_clock import MarketHours, is_open
from .non_trade import LISTED, NonTrade, activity_of, after
from .numbers import Ticker
from .orders import ZERO, Execution, Order, Ticket, moved
from .positions import Position, Seed, net
from .quotes import PINS, Pin, QuoteBoard
from .reversals import busted, corrected, standing
from .rules import RuleBook
from .settings import Settings
from .store import Change, Receipt, Store
from .trade_stream import TradeStream

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An order that was taken, and how its answer is to be spoiled, if it is."""

    order: Order
    answer: Answer


@dataclass(frozen=True, slots=True)
class Held:
    """Arrived, not accepted yet: give it to `accept_held` after `hold_s`."""

    ticket: Ticket
    behaviour: Behaviour
    receipt: int
    hold_s: float
    resets: int


class Exchange:
    """One account at one broker. Everything that happens is committed before anybody is told of it."""

    def __init__(self, store: Store, stream: TradeStream, settings: Settings, seeds: Iterable[Seed]) -> None:
        self._settings = settings
        self._store = store
        self._seeds = list(seeds)
        self._resets = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.stream = stream
        self.account_filter = settings.account
        self.account = settings.account or "SIMULATOR"
        self._load()

    def _load(self) -> None:
        store = self._store
        self.book = Book.load(store)
        self.ticker = Ticker(self.book.last_us)
        self.rules = RuleBook(store)
        self.conduct = Conduct.kept(store.value("conduct"), self._settings)
        self.hours = MarketHours.model_validate_json(store.value("hours") or "{}")
        self.quotes = QuoteBoard(self._settings.seed, PINS.validate_json(store.value("pins") or "{}"))
        self.non_trades = LISTED.validate_json(store.value("non_trades") or "[]")
        if store.value("seeded") is None:
            self.set_positions(self._seeds)

    def resume(self) -> None:
        """After a start: arm what the last run left unfinished."""
        for order in list(self.book.open_orders()):
            self._arm(order.id)

    # orders

    def submit(self, body: bytes) -> Refusal | Held | Accepted:
        """One `POST /v2/orders`; committed when this returns."""
        fields = read_fields(body)
        at_us = self.ticker.next_us()
        ticket = read_ticket(fields, self.quotes.tick_of)
        with self._store.transaction():
            receipt = self._store.add_receipt(client_order_id_of(fields), at_us, body, "held")
            if isinstance(ticket, Refusal):
                return self._refused(receipt, ticket)
            repeated = self._repeat_refusal(ticket)
            if repeated is not None:
                return self._refused(receipt, repeated)
            behaviour = self.rules.take(ticket.client_order_id, ticket.symbol)
            if isinstance(behaviour.answer, AcceptLate):
                return Held(ticket, behaviour, receipt, behaviour.answer.hold_s, self._resets)
            outcome, change = self._take(ticket, behaviour, receipt)
        self.book.apply(change)
        return outcome

    def accept_held(self, held: Held) -> Refusal | Accepted:
        """Take, or refuse, what was held back on its way in; refused after a reset."""
        if held.resets != self._resets:
            return Refusal(503, 50310000, "the simulator was reset while it held this request")
        with self._store.transaction():
            repeated = self._repeat_refusal(held.ticket)
            if repeated is not None:
                return self._refused(held.receipt, repeated)
            outcome, change = self._take(held.ticket, held.behaviour, held.receipt)
        self.book.apply(change)
        return outcome

    def note_unprocessed(self, body: bytes, outcome: str) -> None:
        """A POST that an outage swallowed: it counts as received, and nothing else happens."""
        with self._store.transaction():
            self._store.add_receipt(client_order_id_of(read_fields(body)), self.ticker.next_us(), body, outcome)

    def _take(self, ticket: Ticket, behaviour: Behaviour, receipt: int) -> tuple[Refusal | Accepted, Change]:
        refusal = self._scripted_refusal(behaviour) or self._market_refusal(ticket) or self._quantity_refusal(ticket)
        if refusal is not None:
            return self._refused(receipt, refusal), Change()
        at_us = self.ticker.next_us()
        steps = steps_of(behaviour.execution, ticket.qty)
        order = Order(
            id=str(uuid4()),
            ticket=ticket,
            submitted_us=at_us,
            updated_us=at_us,
            visible_us=at_us + int(behaviour.visible_after_s * 1_000_000),
            behaviour=behaviour,
            steps=steps,
            due_us=at_us + int(steps[0].after_s * 1_000_000) if steps else None,
        )
        change = Change(orders={order.id: order})
        self._store.save(change)
        self._store.settle_receipt(receipt, "accepted", order.id)
        log.info("order_accepted", client_order_id=ticket.client_order_id, order_id=order.id, symbol=ticket.symbol)
        self._arm(order.id)
        return Accepted(order, behaviour.answer), change

    def _refused(self, receipt: int, refusal: Refusal) -> Refusal:
        log.info("order_refused", receipt=receipt, status=refusal.status, code=refusal.code, message=refusal.message)
        self._store.settle_receipt(receipt, f"refused {refusal.status} {refusal.code}: {refusal.message}", None)
        return refusal

    def _repeat_refusal(self, ticket: Ticket) -> Refusal | None:
        if self.conduct.deduplication == "none":
            return None
        earlier = self.book.by_client_id(ticket.client_order_id)
        if self.conduct.deduplication == "while_open":
            earlier = [order for order in earlier if order.is_open]
        if not earlier:
            return None
        scripted = earlier[-1].behaviour.repeat
        return Refusal(scripted.status, scripted.code, scripted.message) if scripted else duplicate_client_order_id()

    def _scripted_refusal(self, behaviour: Behaviour) -> Refusal | None:
        match behaviour.answer:
            case Reject(status=status, code=code, message=message, retry_after_s=retry_after_s):
                return Refusal(status, code, message, retry_after_s)
            case _:
                return None

    def _market_refusal(self, ticket: Ticket) -> Refusal | None:
        closed = not is_open(self.hours, ticket.asset_class, self.ticker.next_us())
        if closed and ticket.asset_class == "us_option" and ticket.type == "market":
            return unprocessable("options market orders are only allowed during market hours")
        return None

    def _quantity_refusal(self, ticket: Ticket) -> Refusal | None:
        """Reducing more than is held is refused, and so is selling what is not held unless it says sell_to_open. An
        account that may go short (`refuse_closes`) is held only to what an order itself says: that it closes."""
        closing = ticket.position_intent in ("buy_to_close", "sell_to_close")
        if self.conduct.oversell == "allow" or (self.conduct.oversell == "refuse_closes" and not closing):
            return None
        position = self.book.closes(ticket)
        existing = abs(position.qty) if position else ZERO
        held = self.book.held(position) if position else ZERO
        selling_short = ticket.side == "sell" and ticket.position_intent is None
        if (position or closing or selling_short) and ticket.qty > existing - held:
            return insufficient_quantity(ticket.symbol, requested=ticket.qty, existing=existing, held=held)
        return None

    def find(self, order_id: str) -> Order | None:
        """None also while the script keeps the order invisible."""
        order = self.book.orders.get(order_id)
        return order if order and self.is_visible(order) else None

    def find_by_client_id(self, client_order_id: str) -> Order | None:
        """The newest one, when the broker accepted several."""
        visible = [order for order in self.book.by_client_id(client_order_id) if self.is_visible(order)]
        return visible[-1] if visible else None

    def is_visible(self, order: Order) -> bool:
        """Whether a look-up finds the order yet."""
        return order.visible_us <= order.submitted_us or order.visible_us <= self.ticker.next_us()

    def cancel(self, order_id: str) -> Refusal | None:
        """Ask for a cancel; None: taken, the outcome comes later."""
        order = self.find(order_id)
        if order is None:
            return order_not_found(order_id)
        if not order.is_open or order.status == "pending_cancel":
            return not_cancelable(order.status)
        at_us = self.ticker.next_us()
        answer = order.behaviour.cancel
        if isinstance(answer, RefuseCancel) and (answer.times is None or order.cancels_refused < answer.times):
            self._commit(Change(orders={order.id: replace(order, cancels_refused=order.cancels_refused + 1)}))
            return Refusal(answer.status, answer.code, answer.message)
        after_s = answer.after_s if isinstance(answer, AcceptCancel) else 0
        pending = moved(order, "pending_cancel", at_us)
        pending = replace(pending, cancel_due_us=None if after_s is None else at_us + int(after_s * 1_000_000))
        progress = Progress(pending)
        progress.note("pending_cancel", at_us)
        self._finish(progress)
        return None

    def rescript(self, client_order_id: str, behaviour: Behaviour) -> int:
        """Give the open orders of this client order id another behaviour from now on; returns how many there were."""
        orders = [order for order in self.book.by_client_id(client_order_id) if order.is_open]
        now_us = self.ticker.next_us()
        for order in orders:
            steps = steps_of(behaviour.execution, order.leaves_qty)
            due_us = now_us + int(steps[0].after_s * 1_000_000) if steps else None
            self._commit(Change(orders={order.id: replace(order, behaviour=behaviour, steps=steps, due_us=due_us)}))
            self._arm(order.id)
        return len(orders)

    def name_executions(self, client_order_id: str) -> int:
        """Let the activities have the fills of this client order id's orders; returns how many orders there are."""
        orders = self.book.by_client_id(client_order_id)
        named = {
            one.id: replace(one, behaviour=one.behaviour.model_copy(update={"executions": "named"})) for one in orders
        }
        self._commit(Change(orders=named))
        return len(named)

    def is_listed(self, execution: Execution) -> bool:
        """Whether the activities have it."""
        if execution.kind != "fill" and self.conduct.reversals == "unlisted":
            return False
        return self.book.orders[execution.order_id].behaviour.executions == "named"

    # execution

    def bust(self, execution_id: str, *, revive: bool) -> Execution:
        """Take an execution back; raises NotReversible."""
        one = standing(self.book.executions, execution_id)
        order, position = self.book.orders[one.order_id], self.book.positions.get(one.symbol)
        return self._reverse(busted(order, position, one, at_us=self.ticker.next_us(), revive=revive))

    def correct(self, execution_id: str, *, qty: Decimal, price: Decimal, revive: bool) -> Execution:
        """Give an execution another quantity and price; raises NotReversible."""
        one = standing(self.book.executions, execution_id)
        order, position = self.book.orders[one.order_id], self.book.positions.get(one.symbol)
        at_us = self.ticker.next_us()
        return self._reverse(corrected(order, position, one, qty=qty, price=price, at_us=at_us, revive=revive))

    def _reverse(self, progress: Progress) -> Execution:
        self._finish(progress)
        (made,) = progress.executions
        log.info("execution_reversed", kind=made.kind, execution_id=made.id, replaces=made.ref_id)
        return made

    def advance(self, order_id: str) -> None:
        """Do everything that is due for one order."""
        self._disarm(order_id)
        order = self.book.orders.get(order_id)
        if order is None or not order.is_open:
            return
        now_us = self.ticker.next_us()
        symbol = order.ticket.symbol
        progress = progressed(
            order,
            self.book.positions.get(symbol),
            quote=self.quotes.quote(symbol, now_us),
            market_open=is_open(self.hours, order.ticket.asset_class, now_us),
            now_us=now_us,
            next_us=self.ticker.next_us,
        )
        self._finish(progress)

    def _finish(self, progress: Progress) -> None:
        order = progress.order
        if progress.notices or progress.moved:
            self._commit(progress.change())
        ahead = order.behaviour.stream.ahead
        for notice in (replace(one, order=order) if ahead else one for one in progress.notices):
            if notice.execution is not None and order.behaviour.executions == "unnamed":
                continue
            self.stream.publish(
                order.id, update_json(notice), order.behaviour.stream, order_done=not notice.order.is_open
            )
        # In a closed market only a cancel goes on; opening wakes every order.
        open_now = is_open(self.hours, order.ticket.asset_class, self.ticker.next_us())
        dues = [due for due in (order.due_us if open_now else None, order.cancel_due_us) if due is not None]
        if order.is_open and dues:
            self._arm(order.id, max(0, (min(dues) - self.ticker.next_us()) / 1_000_000))

    def match_all(self) -> None:
        """After a quote moved or the market opened."""
        for order in list(self.book.open_orders()):
            if order.steps is None or order.id not in self._timers:
                self.advance(order.id)

    def tick(self) -> None:
        """Let prices walk and orders execute."""
        self.quotes.tick(self.ticker.next_us())
        self.match_all()

    def _arm(self, order_id: str, delay_s: float = 0) -> None:
        self._disarm(order_id)
        self._timers[order_id] = asyncio.get_running_loop().call_later(delay_s, self.advance, order_id)

    def _disarm(self, order_id: str) -> None:
        armed = self._timers.pop(order_id, None)
        if armed is not None:
            armed.cancel()

    def _commit(self, change: Change) -> None:
        with self._store.transaction():
            self._store.save(change)
        self.book.apply(change)

    # what the control endpoint changes

    def set_positions(self, seeds: Iterable[Seed]) -> None:
        """Replace every position; rows of one symbol are netted. Entry prices are the quote's."""
        positions = {}
        now_us = self.ticker.next_us()
        for symbol, seed in net(seeds).items():
            quote = self.quotes.quote(symbol, now_us)
            price = quote.mid if quote else Decimal(1)
            positions[symbol] = Position(symbol, seed.asset_class, seed.qty, price)
        with self._store.transaction():
            self._store.clear_positions()
            self._store.save(Change(positions=positions))
            self._store.set_value("seeded", "yes")
        self.book.positions.clear()
        self.book.apply(Change(positions=positions))

    def book_non_trade(self, done: NonTrade) -> dict[str, str | None]:
        """Change a holding without an order, and list it; the answer is the activity."""
        activity = activity_of(done, self.ticker.next_us())
        position = self.book.positions.get(done.symbol)
        moved = {done.symbol: after(position, done)} if done.moves and position is not None else {}
        with self._store.transaction():
            self._store.save(Change(positions=moved))
            self._store.set_value("non_trades", LISTED.dump_json([*self.non_trades, activity]).decode())
        self.non_trades.append(activity)
        self.book.apply(Change(positions=moved))
        return activity

    def set_pins(self, pins: Mapping[str, Pin]) -> None:
        """Replace every pinned quote; what is no longer pinned walks again."""
        with self._store.transaction():
            self._store.set_value("pins", PINS.dump_json(dict(pins)).decode())
        self.quotes.pins = dict(pins)
        self.match_all()

    def set_conduct(self, conduct: Conduct) -> None:
        """Behave so from now on, over restarts."""
        with self._store.transaction():
            self._store.set_value("conduct", conduct.model_dump_json())
        self.conduct = conduct

    def set_hours(self, hours: MarketHours) -> None:
        """Keep the market's hours over restarts, and execute what may now."""
        with self._store.transaction():
            self._store.set_value("hours", hours.model_dump_json())
        self.hours = hours
        self.match_all()

    def receipts(self, client_order_id: str | None = None, prefix: str | None = None) -> list[Receipt]:
        """Every POST of an order as it arrived, oldest first: of one client order id, or of all that begin so."""
        return self._store.receipts(client_order_id, prefix)

    def reset(self) -> None:
        """Forget everything and start again from the positions file."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._resets += 1
        with self._store.transaction():
            self._store.wipe()
        self.stream.forget()
        self._load()
