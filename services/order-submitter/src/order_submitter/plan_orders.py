"""Plan what `submit-order` asks for: look at the market, then load, decide and save a batch in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from closeflow.contracts import SubmitOrder, peek
from closeflow.domain.close.outcome import conclude
from closeflow.domain.close.plan_order import (
    AlreadyPlanned,
    Asked,
    Defer,
    Deny,
    Disagrees,
    Market,
    Plan,
    PlanRules,
    Submit,
    apply_plan,
    plan,
    plan_incident,
)
from closeflow.domain.ids import client_order_id
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Book, Event, Incident, Order, OrderType, Send, SendKind, Side
from closeflow.domain.position.freeze import freeze_request
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending.claim import claim
from closeflow.domain.sending.send_check import Clear, recheck
from closeflow.domain.trading_controls import Controls, counted
from closeflow.kafka import DeadLetter, Record
from closeflow.storage.book.load import lock_books, positions_of_requests
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core.engine import (
    CommitUnknown,
    Database,
    StatementError,
    Transaction,
    database_now,
    is_poison,
    retrying,
)
from closeflow.storage.inbox import record_receipts
from closeflow.storage.incidents import report_incidents
from closeflow.storage.order_sends import insert_sends
from closeflow.storage.outbox import insert_events
from closeflow.storage.parked_records import ParkedRecord, park_records
from closeflow.storage.trading_controls import count_submits, lock_controls
from order_submitter.market import MarketView
from order_submitter.sending.claims import claiming
from order_submitter.sending.pool import Job, SenderPool

CONSUMER: Final = "order-submitter"
PLANS: Final = Counter("closeflow_plans_total", "Attempts planned, by what was decided", ["plan"])
VISIBLE_STEP_S: Final = 0.05
NOT_VISIBLE: Final = "request_not_visible"
SubmitRecord = Record[SubmitOrder]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BatchResult:
    """What the batch came to."""

    before: dict[int, Book]
    books: dict[int, Book]
    now: datetime
    controls: Controls
    """The account's, with what this batch has claimed."""
    checked_at: float
    """Monotonic. Books were locked before it; the kill switch was read after it, so a halt that was not seen then
    committed later than this."""
    events: list[Event] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    outcomes: dict[UUID, str] = field(default_factory=dict)
    claimed: list[tuple[Order, Send]] = field(default_factory=list)
    plans: list[tuple[SubmitOrder, Plan]] = field(default_factory=list)
    invisible: list[SubmitRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """The planning use-case; `plan_batch` is what the consume loop calls."""

    database: Database
    market: MarketView
    pool: SenderPool
    account_id: str
    """Whose orders go to the pool's broker. Records of other accounts are for submitters of other consumer groups."""
    rules: PlanRules
    policy: RetryPolicy
    instance_id: str
    lease_s: float
    visible_within_s: float

    async def plan_batch(self, records: Sequence[SubmitRecord]) -> None:
        """Commits the batch, then starts its sends. A request that cannot be seen yet is waited for (logical decoding
        can be faster than the visibility of a commit) and parked in the end, never dropped."""
        give_up_at = time.monotonic() + self.visible_within_s
        waiting = [record for record in records if record.value.account_id == self.account_id]
        if len(waiting) < len(records):
            log.warning("other_accounts_skipped", count=len(records) - len(waiting), account_id=self.account_id)
        while waiting:
            waiting = await self._plan(waiting)
            if waiting and time.monotonic() >= give_up_at:
                waiting = [record for record in waiting if not await self._park(record, NOT_VISIBLE)]
            await asyncio.sleep(VISIBLE_STEP_S if waiting else 0)

    async def _plan(self, records: list[SubmitRecord]) -> list[SubmitRecord]:
        """Returns the records that have to be planned again."""
        market = await self._look_at_market(records)
        try:
            return await self._commit(records, market, looked_at=time.monotonic())
        except CommitUnknown:
            return records  # What was committed is AlreadyPlanned the next time.
        except (StatementError, MoveRefused) as error:
            if isinstance(error, StatementError) and not is_poison(error):
                raise
            if len(records) == 1:
                await self._park(records[0], _first_line(error))
                return []
        again: list[SubmitRecord] = []
        for record in records:
            again += await self._plan([record])
        return again

    async def _look_at_market(self, records: Sequence[SubmitRecord]) -> Market:
        if self.pool.plans_resume_in_s() is not None:
            return Market(clock=None, quotes={})  # What is deferred for the breaker needs none of it.
        asked = [record.value for record in records]
        quoted = {one.symbol: one.asset_type for one in asked if _needs_quote(one)}
        return await self.market.look(quoted=quoted, traded=frozenset(one.asset_type for one in asked))

    async def _commit(self, records: Sequence[SubmitRecord], market: Market, *, looked_at: float) -> list[SubmitRecord]:
        async with claiming(self.pool) as claims:

            async def work(tx: Transaction) -> BatchResult:
                claims.anew()
                seen = replace(market, waited_s=time.monotonic() - looked_at)
                folded = await self._fold(tx, records, seen, claims.jobs)
                await _save(tx, folded)
                claims.written()
                return folded

            folded = await retrying(self.database, work)
        _report(folded)
        return folded.invisible

    async def _fold(
        self, tx: Transaction, records: Sequence[SubmitRecord], market: Market, claimed: list[Job]
    ) -> BatchResult:
        before = await lock_books(tx, request_ids={one.value.close_request_id for one in records})
        checked_at = time.monotonic()
        found = await lock_controls(tx, account_id=self.account_id)
        now = found.now
        folded = BatchResult(before=before, books=dict(before), now=now, controls=found.controls, checked_at=checked_at)
        positions = positions_of_requests(before.values())
        to_conclude: dict[int, None] = {}
        for record in records:
            position_id = positions.get(record.value.close_request_id)
            if position_id is None:
                folded.invisible.append(record)
                continue
            decided = self._plan_one(folded, position_id, record.value, market, claimed)
            if isinstance(decided, Defer | Deny):
                to_conclude[position_id] = None
        for position_id in to_conclude:
            concluded = conclude(before[position_id], folded.books[position_id], now=now, policy=self.policy)
            folded.books[position_id] = concluded.book
            folded.events += concluded.events
            folded.incidents += concluded.incidents
        return folded

    def _plan_one(
        self,
        folded: BatchResult,
        position_id: int,
        message: SubmitOrder,
        market: Market,
        claimed: list[Job],
    ) -> Plan:
        now = folded.now
        book = folded.books[position_id]
        resumes_in_s = self.pool.plans_resume_in_s()
        if resumes_in_s is not None:
            market = replace(market, sends_resume_at=now + timedelta(seconds=resumes_in_s))
        decided = plan(book, _asked(message), controls=folded.controls, market=market, now=now, rules=self.rules)
        book = apply_plan(book, message.close_request_id, decided, now=now)
        request = book.requests[message.close_request_id]
        if isinstance(decided, Submit):
            # The planner's work is checked by code that shares nothing with it; what does not pass is left to the poll.
            check = recheck(book, decided.order, controls=folded.controls, now=now)
            if isinstance(check, Clear) and self.pool.reserve(SendKind.SUBMIT):
                order, send = claim(
                    decided.order,
                    SendKind.SUBMIT,
                    sender=self.instance_id,
                    now=now,
                    lease_s=self.lease_s,
                    probe=self.pool.probing,
                )
                book = replace(book, orders={**book.orders, order.client_order_id: order})
                folded.claimed.append((order, send))
                folded.controls = counted(folded.controls, now=now)
                claimed.append(
                    Job(order=order, send=send, checked_at=folded.checked_at, traceparent=request.traceparent)
                )
            elif not isinstance(check, Clear):
                log.warning("plan_failed_recheck", client_order_id=decided.order.client_order_id, check=repr(check))
        incident = plan_incident(request, decided)
        if incident is not None:
            folded.incidents.append(incident)
        folded.books[position_id] = book
        folded.plans.append((message, decided))
        folded.outcomes[message.event_id] = "ignored" if isinstance(decided, Defer | Disagrees) else "applied"
        return decided

    async def report_unreadable(self, letters: Sequence[DeadLetter]) -> None:
        """Tell a person of records on their way to the dead letters. Nothing is frozen: what nobody can read plans
        nothing, and the request's event comes again."""
        log.warning("records_unreadable", count=len(letters))
        await retrying(self.database, lambda tx: report_incidents(tx, incidents=[_unreadable(one) for one in letters]))

    async def _park(self, record: SubmitRecord, reason: str) -> bool:
        """Keep the record whole, tell a person, freeze the request if there is one; so the partition goes on.

        False when a request that could not be seen is there after all: nothing was written, it can be planned.
        """
        message = record.value

        async def work(tx: Transaction) -> bool:
            books = await lock_books(tx, request_ids=[message.close_request_id])
            if books and reason == NOT_VISIBLE:
                return False
            frozen = {
                key: freeze_request(book, message.close_request_id, IncidentKind.SUBMIT_ORDER_PARKED)
                for key, book in books.items()
            }
            changes = [(book, frozen[key]) for key, book in books.items() if frozen[key] is not book]
            await save_books(tx, changes=changes)
            incident = Incident(
                kind=IncidentKind.SUBMIT_ORDER_PARKED,
                severity="critical",
                detail=reason,
                close_request_id=message.close_request_id,
            )
            await report_incidents(tx, incidents=[incident])
            now = await database_now(tx)
            await park_records(tx, records=[_parked(record, reason)], now=now)
            await record_receipts(tx, consumer=CONSUMER, outcomes={message.event_id: "parked"}, now=now)
            return True

        parked = await retrying(self.database, work)
        if parked:
            log.error("record_parked", close_request_id=str(message.close_request_id), reason=reason)
        return parked


async def _save(tx: Transaction, folded: BatchResult) -> None:
    changes = [(folded.before[key], book) for key, book in folded.books.items() if book is not folded.before[key]]
    await save_books(tx, changes=changes)
    if folded.claimed:
        await insert_sends(tx, sends=folded.claimed)
        await count_submits(tx, controls=folded.controls)
    await insert_events(tx, events=folded.events)
    await report_incidents(tx, incidents=folded.incidents)
    await record_receipts(tx, consumer=CONSUMER, outcomes=folded.outcomes, now=folded.now)


def _unreadable(letter: DeadLetter) -> Incident:
    """About the request that it names, so that its event, coming again and again, counts on one incident."""
    place = f"{letter.topic}/{letter.partition}/{letter.offset}"
    try:
        subject = str(UUID(str(peek(letter.raw).get("close_request_id"))))
    except ValueError:
        subject = place
    detail = f"{letter.error_class}: {letter.reason} ({place})"
    return Incident(kind=IncidentKind.UNREADABLE_SUBMIT_ORDER, severity="critical", detail=detail, subject=subject)


def _needs_quote(message: SubmitOrder) -> bool:
    """A buy at the user's own limit costs that at most; a sell brings what the market pays, which limits measure."""
    own_limit = message.order_type is OrderType.LIMIT and message.limit_price is not None
    return not own_limit or message.side is Side.SELL


def _asked(message: SubmitOrder) -> Asked:
    return Asked(
        close_request_id=message.close_request_id,
        attempt=message.attempt,
        position_id=message.position_id,
        account_id=message.account_id,
        symbol=message.symbol,
        side=message.side,
    )


def _parked(record: SubmitRecord, reason: str) -> ParkedRecord:
    return ParkedRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        headers={name: (raw or b"").decode(errors="replace") for name, raw in record.headers},
        value=record.raw,
        reason=reason,
        # Of the order that it asks for: by it the reconciler finds the request once that can be seen.
        client_order_id=client_order_id(record.value.close_request_id, record.value.attempt),
    )


def _report(folded: BatchResult) -> None:
    for message, decided in folded.plans:
        PLANS.labels(type(decided).__name__).inc()
        bound = log.bind(close_request_id=str(message.close_request_id), attempt=message.attempt)
        match decided:
            case Submit(order):
                bound.info("order_planned", client_order_id=order.client_order_id, quantity=str(order.quantity))
            case Defer(until, reason):
                bound.info("close_deferred", reason=reason, until=until.isoformat())
            case Deny(code, detail):
                bound.warning("close_denied", code=code, detail=detail)
            case Disagrees(reason):
                bound.error("message_disagreed", reason=reason)
            case AlreadyPlanned():
                bound.info("attempt_already_planned")


def _first_line(error: StatementError | MoveRefused) -> str:
    cause = error.orig if isinstance(error, StatementError) else error
    return str(cause).splitlines()[0][:500]
