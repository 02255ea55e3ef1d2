"""Everything the broker knows, in memory; a copy of what the store holds."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal

from .orders import ZERO, Execution, Order, Ticket
from .positions import Position
from .store import Change, Store


class Book:
    """Orders in order of submission, executions in order of time, positions by symbol."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.executions: list[Execution] = []
        self.positions: dict[str, Position] = {}
        self._by_client_id: dict[str, list[str]] = defaultdict(list)
        self._submitted: list[tuple[int, str]] = []
        self._open: dict[str, dict[str, None]] = defaultdict(dict)

    @classmethod
    def load(cls, store: Store) -> "Book":
        """Everything that the store holds, as after a restart."""
        book = cls()
        change = Change(
            orders={order.id: order for order in store.orders()},
            executions=list(store.executions()),
            positions={position.symbol: position for position in store.positions()},
        )
        book.apply(change)
        return book

    def apply(self, change: Change) -> None:
        """Take over what one event changed; the store has it already."""
        for order in change.orders.values():
            if order.id not in self.orders:
                self._by_client_id[order.ticket.client_order_id].append(order.id)
                self._submitted.append((order.submitted_us, order.id))
            self.orders[order.id] = order
            if order.is_open:
                self._open[order.ticket.symbol][order.id] = None
            else:
                self._open[order.ticket.symbol].pop(order.id, None)
        self.executions += change.executions
        for position in change.positions.values():
            if position.qty:
                self.positions[position.symbol] = position
            else:
                self.positions.pop(position.symbol, None)

    @property
    def last_us(self) -> int:
        """The newest time stored anywhere in the book."""
        newest_order = max((order.updated_us for order in self.orders.values()), default=0)
        return max(newest_order, self.executions[-1].at_us if self.executions else 0)

    def by_client_id(self, client_order_id: str) -> list[Order]:
        """Oldest first; more than one only when de-duplication is not `forever`."""
        return [self.orders[order_id] for order_id in self._by_client_id.get(client_order_id, ())]

    def open_orders(self, symbol: str | None = None) -> Iterator[Order]:
        """Those that may still fill, of a symbol or of all."""
        symbols: Iterable[str] = list(self._open) if symbol is None else (symbol,)
        for name in symbols:
            for order_id in list(self._open.get(name, ())):
                yield self.orders[order_id]

    def submitted_between(self, after_us: int | None, until_us: int | None, *, newest_first: bool) -> Iterator[Order]:
        """Orders with after < submission ≤ until."""
        low = 0 if after_us is None else bisect_right(self._submitted, (after_us, "~"))
        high = len(self._submitted) if until_us is None else bisect_right(self._submitted, (until_us, "~"))
        indices = range(high - 1, low - 1, -1) if newest_first else range(low, high)
        return (self.orders[self._submitted[index][1]] for index in indices)

    def executions_after(self, after_us: int | None, until_us: int | None) -> tuple[int, int]:
        """Index range of executions with after < time ≤ until."""
        low = 0 if after_us is None else bisect_right(self.executions, after_us, key=lambda e: e.at_us)
        high = len(self.executions)
        if until_us is not None:
            high = bisect_left(self.executions, until_us + 1, key=lambda e: e.at_us)
        return low, high

    def held(self, position: Position) -> Decimal:
        """Quantity that open orders on the closing side have reserved."""
        closing = "sell" if position.qty > 0 else "buy"
        orders = self.open_orders(position.symbol)
        return sum((order.leaves_qty for order in orders if order.ticket.side == closing), ZERO)

    def closes(self, ticket: Ticket) -> Position | None:
        """The position that this ticket would reduce."""
        position = self.positions.get(ticket.symbol)
        if position is None or (position.qty > 0) == (ticket.side == "buy"):
            return None
        return position
