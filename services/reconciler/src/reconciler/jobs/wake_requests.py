"""Due retries and deferrals, zombies, deadlines and long unknowns: move the requests that time has to move."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, assert_never
from uuid import UUID

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.domain.close.timeouts import SUBMIT_UNKNOWN, Conditions, Moved, PutOff, Waits, wake
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import Book, Event, Incident
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core.engine import (
    Database,
    StatementError,
    Transaction,
    database_now,
    is_poison,
    retrying,
    transaction,
)
from closeflow.storage.due_work import Sending, due_requests, sending_of_accounts
from closeflow.storage.incidents import report_incidents
from closeflow.storage.outbox import insert_events

log = structlog.get_logger(__name__)

PASS_OVER_S: Final = 5.0
"""A request that had to wait (frozen, not clear) is left alone this long, so that it does not use up the budget."""


NOT_SENDING: Final = Sending(resumes_at=None, halted=True)


@dataclass(slots=True)
class MarketHours:
    """The broker's market clock, or that it could not be had, kept for a moment."""

    broker: Broker
    reuse_s: float
    _looked: tuple[float, MarketClock | None] | None = None

    async def look(self) -> MarketClock | None:
        """None when it cannot be had."""
        if self._looked is None or time.monotonic() - self._looked[0] >= self.reuse_s:
            clock = None
            try:
                clock = await self.broker.clock()
            except BrokerUnavailable as error:
                log.warning("market_clock_unavailable", reason=error.reason)
            self._looked = (time.monotonic(), clock)
        return self._looked[1]


@dataclass(slots=True)
class WakeRequests:
    """The job; `once` is one cycle. Safe with several replicas: the rows' locks decide."""

    database: Database
    market: MarketHours
    resend_after: timedelta
    unknown_after: timedelta
    budget: int
    _waiting: dict[UUID, float] = field(default_factory=dict)

    async def once(self) -> int:
        """Move what is due; returns how many requests moved. One that cannot be moved does not hold up the others."""
        now = time.monotonic()
        self._waiting = {request: until for request, until in self._waiting.items() if until > now}
        due = await retrying(self.database, self._due)
        if not due:
            return 0
        woken, waiting = await self._move(due, await self.market.look())
        self._waiting |= dict.fromkeys(waiting, now + PASS_OVER_S)
        return woken

    async def _due(self, tx: Transaction) -> dict[UUID, int]:
        return await due_requests(
            tx,
            resend_after=self.resend_after,
            unknown_after=self.unknown_after,
            excluding=self._waiting,
            budget=self.budget,
        )

    async def _move(self, due: Mapping[UUID, int], clock: MarketClock | None) -> tuple[int, list[UUID]]:
        """How many moved, and which have to wait. When one breaks the transaction, each gets its own."""
        try:
            return await retrying(self.database, partial(self._wake, due=due, clock=clock))
        except (StatementError, MoveRefused) as error:
            if isinstance(error, StatementError) and not is_poison(error):
                raise
            if len(due) == 1:
                ((request_id, position_id),) = due.items()
                return 0, [await self._report(request_id, position_id, error)]
        woken, waiting = 0, list[UUID]()
        for request_id, position_id in due.items():
            moved, passed = await self._move({request_id: position_id}, clock)
            woken += moved
            waiting += passed
        return woken, waiting

    async def _report(self, request_id: UUID, position_id: int, error: Exception) -> UUID:
        log.error("request_not_woken", close_request_id=str(request_id), exc_info=error)
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=[_refused(request_id, position_id, error)])
        return request_id

    async def _wake(
        self, tx: Transaction, *, due: Mapping[UUID, int], clock: MarketClock | None
    ) -> tuple[int, list[UUID]]:
        before = await lock_books(tx, position_ids=due.values(), request_ids=due)
        now = await database_now(tx)
        sending = await sending_of_accounts(tx)
        round_ = _Round(dict(before))
        for request_id, position_id in due.items():
            request = before[position_id].requests[request_id]
            allowed = sending.get(request.account_id, NOT_SENDING)
            verdict = wake(
                round_.books[position_id],
                round_.books[position_id].requests[request_id],
                now=now,
                resend_after=self.resend_after,
                unknown_after=self.unknown_after,
                conditions=Conditions(clock=clock, sends_resume_at=allowed.resumes_at, halted=allowed.halted),
            )
            round_.take(request_id, position_id, verdict)
        await save_books(
            tx, changes=[(before[key], book) for key, book in round_.books.items() if book is not before[key]]
        )
        await insert_events(tx, events=round_.events)
        await report_incidents(tx, incidents=round_.incidents)
        return round_.woken, round_.waiting


@dataclass(slots=True)
class _Round:
    """What one transaction came to."""

    books: dict[int, Book]
    events: list[Event] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    waiting: list[UUID] = field(default_factory=list)
    woken: int = 0

    def take(self, request_id: UUID, position_id: int, verdict: Moved | PutOff | Waits) -> None:
        match verdict:
            case Moved(book, events, what, incidents):
                self.books[position_id] = book
                self.events += events
                self.incidents += incidents
                self.woken += 1
                log.info("request_woken", close_request_id=str(request_id), what=what)
                if book.requests[request_id].reason == SUBMIT_UNKNOWN:
                    self.incidents.append(_unknown(request_id, position_id))
            case PutOff(book, until, reason):
                self.books[position_id] = book
                log.info("retry_put_off", close_request_id=str(request_id), until=until.isoformat(), reason=reason)
            case Waits(reason):
                self.waiting.append(request_id)
                log.debug("request_waits", close_request_id=str(request_id), reason=reason)
            case _:
                assert_never(verdict)


def _refused(request_id: UUID, position_id: int, error: Exception) -> Incident:
    return Incident(
        kind=IncidentKind.REQUEST_NOT_WOKEN,
        severity="critical",
        detail=f"time asks something of this request, and it cannot be done: {str(error).partition(chr(10))[0]}",
        position_id=position_id,
        close_request_id=request_id,
    )


def _unknown(request_id: UUID, position_id: int) -> Incident:
    return Incident(
        kind=IncidentKind.SUBMIT_UNKNOWN,
        severity="critical",
        detail="the broker never said whether it has the order; the position may still be reduced by it",
        position_id=position_id,
        close_request_id=request_id,
    )
