"""Due retries and deferrals, zombies, deadlines and long unknowns: move the requests that time has to move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.clock import monotonic
from closeflow.domain.close.due_requests import WakeResult, wake_batch
from closeflow.domain.close.moves import Conditions, Moved, PutOff, Waits
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.market_data import MarketClock
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import Database, StatementError, Transaction, database_now, retrying, transaction
from closeflow.storage.due_work import due_requests, sending_of_accounts
from closeflow.storage.incidents import report_incidents
from closeflow.telemetry import trace_fields
from closeflow.telemetry.spans import Span, begin, is_tracing
from closeflow.unit_of_work import (
    MoveRefused,
    apart_where_one_breaks,
    first_line,
    save,
    traceparents,
    write_in_spans,
)

log = structlog.get_logger(__name__)

PASS_OVER_S: Final = 5.0
"""A request that had to wait (frozen, not clear) is left alone this long, so that it does not use up the budget."""

Due = tuple[UUID, int]
"""A request and its position."""


@dataclass(slots=True)
class MarketHours:
    """The broker's market clock, or that it could not be had, kept for a moment."""

    broker: Broker
    reuse_s: float
    _looked: tuple[float, MarketClock | None] | None = None

    async def look(self) -> MarketClock | None:
        """None when it cannot be had."""
        if self._looked is None or monotonic() - self._looked[0] >= self.reuse_s:
            clock = None
            try:
                clock = await self.broker.clock()
            except BrokerUnavailable as error:
                log.warning("market_clock_unavailable", reason=error.reason)
            self._looked = (monotonic(), clock)
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
        now = monotonic()
        self._waiting = {request: until for request, until in self._waiting.items() if until > now}
        due = await retrying(self.database, self._due)
        if not due:
            return 0
        move = partial(self._move, clock=await self.market.look())
        parts = await apart_where_one_breaks([*due.items()], move, alone=self._report)
        self._waiting |= dict.fromkeys((one for _, waiting in parts for one in waiting), now + PASS_OVER_S)
        return sum(moved for moved, _ in parts)

    async def _due(self, tx: Transaction) -> dict[UUID, int]:
        return await due_requests(
            tx,
            resend_after=self.resend_after,
            unknown_after=self.unknown_after,
            excluding=self._waiting,
            budget=self.budget,
        )

    async def _move(self, due: Sequence[Due], *, clock: MarketClock | None) -> tuple[int, list[UUID]]:
        """How many moved, and which have to wait."""
        spans: dict[UUID, Span] = {}
        result = await retrying(self.database, partial(self._wake, due=dict(due), clock=clock, spans=spans))
        traces = traceparents(result)
        for request_id, verdict in result.verdicts.items():
            match verdict:
                case Moved(what=what):
                    trace = trace_fields(traces.get(request_id))
                    log.info("request_woken", close_request_id=str(request_id), what=what, **trace)
                case PutOff(until=until, reason=reason):
                    log.info("retry_put_off", close_request_id=str(request_id), until=until.isoformat(), reason=reason)
                case Waits(reason):
                    log.debug("request_waits", close_request_id=str(request_id), reason=reason)
        for span in spans.values():
            span.end()
        moved = sum(isinstance(verdict, Moved) for verdict in result.verdicts.values())
        return moved, [request_id for request_id, verdict in result.verdicts.items() if isinstance(verdict, Waits)]

    async def _report(self, due: Due, error: StatementError | MoveRefused) -> tuple[int, list[UUID]]:
        request_id, position_id = due
        log.error("request_not_woken", close_request_id=str(request_id), exc_info=error)
        detail = f"time asks something of this request, and it cannot be done: {first_line(error)}"
        kind = IncidentKind.REQUEST_NOT_WOKEN
        async with transaction(self.database) as tx:
            incident = about(kind, detail, position_id=position_id, close_request_id=request_id)
            await report_incidents(tx, incidents=[incident])
        return 0, [request_id]

    async def _wake(
        self, tx: Transaction, *, due: Mapping[UUID, int], clock: MarketClock | None, spans: dict[UUID, Span]
    ) -> WakeResult:
        books = await lock_books(tx, position_ids=due.values(), request_ids=due)
        sending = await sending_of_accounts(tx)
        result = wake_batch(
            books,
            due,
            now=await database_now(tx),
            resend_after=self.resend_after,
            unknown_after=self.unknown_after,
            conditions={
                account: Conditions(clock=clock, sends_resume_at=one.resumes_at, halted=one.halted)
                for account, one in sending.items()
            },
        )
        spans.clear()
        spans |= _spans_of(result) if is_tracing() else {}
        write_in_spans(result, {request_id: span.context.header() for request_id, span in spans.items()})
        await save(tx, result)
        return result


def _spans_of(result: WakeResult) -> dict[UUID, Span]:
    """One for each close that moves, in its trace."""
    spans, traces = {}, traceparents(result)
    for request_id, verdict in result.verdicts.items():
        traceparent = traces.get(request_id)
        if isinstance(verdict, Moved) and traceparent is not None:
            span = spans[request_id] = begin("wake close", traceparent, closeflow__what=verdict.what)
            span.attributes["closeflow.close_request.id"] = str(request_id)
            for incident in verdict.incidents:
                span.fail(f"incident {incident.kind}")
    return spans
