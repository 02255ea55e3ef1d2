"""What a pure decision makes of a batch of items. The one who asked for it writes it in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, Event, Incident, Order, Send, SendKind
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.trading_controls import Controls, counted

APPLIED: Final = "applied"
IGNORED: Final = "ignored"
PARKED: Final = "parked"


@dataclass(slots=True, kw_only=True)
class BatchResult:
    """The books as they were loaded and as they are decided, and what else is to be written with them. The second item
    on a position is decided with the book that the first one left in `books` (rule R10)."""

    before: Mapping[int, Book]
    """By position id, locked in the transaction that writes the result."""
    now: datetime
    """The database's time."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    books: dict[int, Book] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    outcomes: dict[UUID, str] = field(default_factory=dict)
    """What became of each record, by its event id: APPLIED, IGNORED or PARKED."""
    claimed: list[tuple[Order, Send]] = field(default_factory=list)
    controls: Controls | None = None
    """The account's, with the submits that are claimed here: set by whoever claims."""

    def __post_init__(self) -> None:
        self.books = {**self.before, **self.books}

    @property
    def changes(self) -> list[tuple[Book, Book]]:
        """Each book that is not as it was loaded: before and after."""
        return [(self.before[key], book) for key, book in self.books.items() if book is not self.before[key]]

    @property
    def claims_submits(self) -> bool:
        """Whether an order is to go out, which counts in the account's window."""
        return any(send.kind is SendKind.SUBMIT for _, send in self.claimed)

    def put(self, book: Book) -> None:
        """The book as it is decided now."""
        self.books[book.position.id] = book

    def put_order(self, order: Order) -> None:
        """The order as it is decided now, in its position's book."""
        book = self.books[order.position_id]
        self.put(replace(book, orders={**book.orders, order.client_order_id: order}))

    def put_claim(self, order: Order, send: Send) -> None:
        """The order with a send that is claimed; a submit counts in the account's window."""
        self.put_order(order)
        self.claimed.append((order, send))
        if send.kind is SendKind.SUBMIT:
            assert self.controls is not None, "who claims a submit has read the account's controls"
            self.controls = counted(self.controls, now=self.now)


def one_book(
    before: Book,
    after: Book | None = None,
    *,
    now: datetime,
    events: tuple[Event, ...] = (),
    incidents: tuple[Incident, ...] = (),
) -> BatchResult:
    """A decision about a single position; without `after` its book stays as it is."""
    result = BatchResult(before={before.position.id: before}, now=now, events=[*events], incidents=[*incidents])
    if after is not None:
        result.put(after)
    return result
