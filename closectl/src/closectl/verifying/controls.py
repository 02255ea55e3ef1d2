"""Every send against the kill switch and the limits of its time (invariants 18 and 19)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from closectl.verifying.rates import rate_limit_breaches
from closectl.verifying.report import Looked, looked
from closectl.verifying.sends import sends_of
from closeflow.domain import market_data
from closeflow.domain.model import Book, Order, Send, SendKind
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.controls import ControlsHistory, Halt, Limits
from closeflow.storage.verify.snapshot import PastBook

WITHIN: Final = timedelta(seconds=1)
"""How soon after its commit a halt stops every new order."""
GLOBAL: Final = "global"
DATABASE: Final = "database"

Wrong = Iterator[tuple[str, str]]


@dataclass(slots=True)
class ControlChecks:
    """Fed with every book, a chunk at a time."""

    history: ControlsHistory
    sends: int = 0
    orders: int = 0
    submits: defaultdict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    wrong: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: {18: [], 19: []})

    def add(self, books: Iterable[PastBook]) -> None:
        """Check the sends of some books more; each book is given once."""
        for past in books:
            for order in past.book.orders.values():
                sends = sends_of(order)
                self.sends += len(sends)
                claims = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT]
                self.submits[order.account_id] += claims  # One that was not sent after all counts as well.
                for send in sends:
                    self.wrong[18] += _halted(order, send, self.history.halts)
                if sends and order.account_id in self.history.limits:
                    self.orders += 1
                    self.wrong[19] += _too_large(past.book, order, self.history.limits[order.account_id])

    def findings(self) -> list[Looked]:
        """Invariants 18 and 19 on everything that was added; an account's rate can only be judged over all of its
        sends."""
        rates = [one for account in sorted(self.submits) for one in self._too_many(account)]
        return [
            looked(18, DATABASE, "sends", self.sends, self.wrong[18]),
            looked(18, DATABASE, "halts", len(self.history.halts), ()),
            looked(19, DATABASE, "orders sent", self.orders, self.wrong[19]),
            looked(19, DATABASE, "accounts' rates", len(self.submits), rates),
        ]

    def _too_many(self, account: str) -> Wrong:
        limits = self.history.limits.get(account)
        if limits is None:
            return
        for at, most in rate_limit_breaches(
            self.submits[account], lambda since, until: _most_submits(limits, since, until)
        ):
            yield f"account {account}", f"more than {most} submits in the minute from {at.isoformat()} on"


def _halted(order: Order, send: Send, halts: Sequence[Halt]) -> Wrong:
    for halt in halts:
        if halt.scope not in (GLOBAL, order.account_id) or send.started_at <= halt.since + WITHIN:
            continue
        if halt.until is None or send.started_at < halt.until:
            yield (
                f"order {order.client_order_id}",
                f"its send {send.n} started at {send.started_at.isoformat()}; {halt.scope} was halted at "
                f"{halt.since.isoformat()}",
            )


def _too_large(book: Book, order: Order, limits: Sequence[Limits]) -> Wrong:
    """By the limits that were the widest between the plan and the first send."""
    allowed = _in_force(limits, order.created_at, max(one.started_at for one in sends_of(order)))
    subject = f"order {order.client_order_id}"
    most = max(one.max_order_quantity for one in allowed)
    if order.quantity > most:
        yield subject, f"is for {decimal_text(order.quantity)}; the account's orders have at most {decimal_text(most)}"
    price = _price(order)
    notional = order.quantity * price * book.position.multiplier
    most = max(one.max_order_notional for one in allowed)
    if notional > most:
        yield (
            subject,
            f"is worth {decimal_text(notional)} at {decimal_text(price)}; the account's orders at most "
            f"{decimal_text(most)}",
        )


def _price(order: Order) -> Decimal:
    """The limit or the touch, whichever is higher; nothing is known of a market order without its quote."""
    return max(order.limit_price or Decimal(0), market_data.noted_touch(order.side, order.quote) or Decimal(0))


def _most_submits(limits: Sequence[Limits], since: datetime, until: datetime) -> int:
    return max(one.submits_per_minute for one in _in_force(limits, since, until))


def _in_force(limits: Sequence[Limits], since: datetime, until: datetime) -> list[Limits]:
    """The limits of an account that held at some moment between the two times, both included. A clock that was set back
    may have written the second time before the first."""
    since, until = min(since, until), max(since, until)
    found: list[Limits] = []
    began: datetime | None = None
    for one in limits:
        if (one.until is None or one.until >= since) and (began is None or began <= until):
            found.append(one)
        began = one.until
    return found
