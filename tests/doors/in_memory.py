"""The use cases over positions in memory, decided by the domain as ever, for tests of what a door makes of them: each
has the methods of the real one that the gRPC door calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from close_api.auth.caller import Caller
from close_api.errors import Code, Problem
from close_api.use_cases.paging import Page
from close_api.use_cases.reading import Changed, PositionFilter, RequestFilter
from closeflow.domain.close.accept import Accepted, CloseCommand, Decision, accept_close
from closeflow.domain.frozen import replace
from closeflow.domain.model import AssetType, Book, CloseRequest, Position, PositionStatus, RequestStatus
from closeflow.domain.trading_controls import TradingState
from closeflow.storage.close_requests import RequestState

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def a_position(position_id: int, *, account: str = "ACC", quantity: str = "10") -> Position:
    return Position(
        id=position_id,
        account_id=account,
        symbol=f"S{position_id}",
        asset_type=AssetType.STOCK,
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=Decimal(quantity),
        quantity=Decimal(quantity),
        status=PositionStatus.OPEN if Decimal(quantity) else PositionStatus.CLOSED,
        version=3,
    )


@dataclass
class Positions:
    """Positions 1 to 200 of ACC and 201 of OTHER; `decide` is what a queue of closes works with."""

    books: dict[int, Book] = field(default_factory=dict)
    asked: list[CloseCommand] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Closes are answered while it is set."""
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a batch has taken the first closes."""
    fails_with: Exception | None = None
    trading: TradingState = TradingState.ACTIVE

    def __post_init__(self) -> None:
        self.open.set()
        for n in range(1, 202):
            position = a_position(n, account="ACC" if n <= 200 else "OTHER")
            self.books[n] = Book(position=position, base_quantity=position.quantity, ledger_quantity=position.quantity)

    async def decide(self, commands: Sequence[CloseCommand]) -> list[Decision | Exception]:
        self.asked += commands
        self.taken.set()
        self.batches.append(len(commands))
        await self.open.wait()
        return [self.fails_with or self._decide(command) for command in commands]

    def _decide(self, command: CloseCommand) -> Decision:
        book = self.books.get(command.position_id)
        requests = {} if book is None else book.requests
        first = next((one for one in requests.values() if one.idempotency_key == command.idempotency_key), None)
        decision = accept_close(book, command, first, trading=self.trading, now=NOW)
        if isinstance(decision, Accepted) and not command.dry_run:
            self.books[command.position_id] = decision.book
        return decision

    def accepted(self) -> list[CloseRequest]:
        return [request for book in self.books.values() for request in book.requests.values()]

    def state_of(self, caller: Caller, request_id: UUID) -> RequestState:
        for book in self.books.values():
            if request_id in book.requests and caller.may_see(book.position.account_id):
                return book.requests[request_id], book.position
        raise Problem(Code.NOT_FOUND)

    def finish(self, request_id: UUID) -> None:
        """As if all were filled."""
        for position_id, book in self.books.items():
            if request_id in book.requests:
                done = replace(book.requests[request_id], status=RequestStatus.COMPLETED, completed_at=NOW)
                self.books[position_id] = replace(book, requests={**book.requests, request_id: done})


class InMemoryReading:
    """`asked` holds the filters and pages that were asked for; `changed` wakes who waits."""

    def __init__(self, positions: Positions) -> None:
        self.positions_in_memory = positions
        self.asked: list[tuple[RequestFilter | PositionFilter, int, str]] = []
        self.waits: list[float] = []
        self.watching = 0
        self.changed = asyncio.Event()
        self.fails_with: Exception | None = None

    async def request(self, caller: Caller, request_id: UUID) -> RequestState:
        if self.fails_with is not None:
            raise self.fails_with
        return self.positions_in_memory.state_of(caller, request_id)

    async def wait(self, caller: Caller, request_id: UUID, *, wait_s: float) -> RequestState:
        await self.request(caller, request_id)
        self.waits.append(wait_s)
        self.watching += 1
        try:
            async with asyncio.timeout(wait_s):
                await self.changed.wait()
        except TimeoutError:
            pass
        finally:
            self.watching -= 1
        return self.positions_in_memory.state_of(caller, request_id)

    async def watch(
        self, caller: Caller, request_id: UUID, *, last_event_id: str | None
    ) -> AsyncGenerator[Changed | None, None]:
        self.watching += 1
        try:
            if last_event_id is None:
                yield Changed("1", self.positions_in_memory.state_of(caller, request_id))
            yield None
            while True:
                await self.changed.wait()
                self.changed.clear()
                state = self.positions_in_memory.state_of(caller, request_id)
                yield Changed("2", state)
                if not state[0].unfinished:
                    return
        finally:
            self.watching -= 1

    async def requests(
        self, caller: Caller, filter: RequestFilter, *, page_size: int, page_token: str
    ) -> Page[RequestState]:
        self.asked.append((filter, page_size, page_token))
        found = [
            (request, book.position)
            for book in self.positions_in_memory.books.values()
            for request in book.requests.values()
            if caller.may_see(request.account_id)
        ]
        return Page(found, "more")

    async def position(self, caller: Caller, position_id: int) -> Position:
        book = self.positions_in_memory.books.get(position_id)
        if book is None or not caller.may_see(book.position.account_id):
            raise Problem(Code.NOT_FOUND)
        return book.position

    async def positions(
        self, caller: Caller, filter: PositionFilter, *, page_size: int, page_token: str
    ) -> Page[Position]:
        self.asked.append((filter, page_size, page_token))
        found = [one.position for one in self.positions_in_memory.books.values()]
        return Page([one for one in found if caller.may_see(one.account_id)][:2], "")


class InMemoryCancelling:
    """Asks for nothing but that the request is there."""

    def __init__(self, positions: Positions) -> None:
        self.positions_in_memory = positions
        self.asked: list[tuple[UUID, str | None, str]] = []

    async def cancel(self, caller: Caller, request_id: UUID, *, reason: str | None, traceparent: str) -> RequestState:
        state = self.positions_in_memory.state_of(caller, request_id)
        self.asked.append((request_id, reason, traceparent))
        return state
