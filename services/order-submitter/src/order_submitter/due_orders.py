"""Attend to orders that are due: unsent plans, repeats, unknown outcomes, cancels. Every instance polls them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from closeflow.broker.budget import Urgency
from closeflow.domain.close.outcome import conclude
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Book, Event, Incident, Order, Send, SendKind
from closeflow.domain.retry import FARTHEST, RetryPolicy
from closeflow.domain.sending.claim import being_looked_up, claim, withdrawn
from closeflow.domain.sending.next_step import GiveUp, LookUp, NothingToDo, SendCancel, SendOrder, Wait, next_step
from closeflow.domain.sending.send_check import Withdraw
from closeflow.domain.trading_controls import Controls, counted
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core.away import Patience
from closeflow.storage.core.engine import Database, StatementError, Transaction, is_poison, retrying, transaction
from closeflow.storage.due_work import DueOrder, due_orders, put_off
from closeflow.storage.incidents import report_incidents
from closeflow.storage.order_sends import insert_sends
from closeflow.storage.outbox import insert_events
from closeflow.storage.trading_controls import count_submits, lock_controls
from order_submitter.look_up import Recovery, Watch
from order_submitter.sending.claims import claiming
from order_submitter.sending.pool import Job, SenderPool

log = structlog.get_logger(__name__)

MOST_AT_ONCE: Final = 64
PUT_OFF_S: Final = 60.0


@dataclass(slots=True)
class Round:
    """What one look at the due orders came to."""

    before: Mapping[int, Book]
    books: dict[int, Book]
    now: datetime
    controls: Controls
    """The account's, with what this round has claimed."""
    checked_at: float
    """Monotonic, from before the controls were read."""
    claimed: list[tuple[Order, Send]] = field(default_factory=list)
    waiting: int = 0
    """Orders that had to go without a send; each one's turn is behind those before it."""
    look_ups: list[tuple[Order, bool]] = field(default_factory=list)
    withdrawn: dict[int, None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueOrderPoller:
    database: Database
    account_id: str
    pool: SenderPool
    recovery: Recovery
    watch: Watch
    policy: RetryPolicy
    instance_id: str
    lease_s: float

    async def attend_once(self) -> int:
        """Do what is due; returns how many orders were looked at."""
        async with transaction(self.database) as tx:
            due = await due_orders(tx, account_id=self.account_id, most=MOST_AT_ONCE)
        if due:
            await self._attend(due)
        return len(due)

    async def _attend(self, due: Sequence[DueOrder]) -> None:
        """Commit what is decided about the orders, then start it. When one breaks the transaction, each gets its own,
        and the one that breaks its own is put off for a person: it must not hold up the account."""
        try:
            await self._commit(due)
        except (StatementError, MoveRefused) as error:
            if isinstance(error, StatementError) and not is_poison(error):
                raise
            if len(due) == 1:
                await self._put_off(due[0], error)
                return
            for one in due:
                await self._attend([one])

    async def _put_off(self, due: DueOrder, error: Exception) -> None:
        log.error("order_not_attended", client_order_id=due.client_order_id, exc_info=error)
        incident = Incident(
            kind=IncidentKind.ORDER_NOT_ATTENDED,
            severity="critical",
            detail=f"what is due for this order cannot be written: {str(error).partition(chr(10))[0]}",
            position_id=due.position_id,
            close_request_id=due.close_request_id,
            client_order_id=due.client_order_id,
        )

        async def work(tx: Transaction) -> None:
            await put_off(tx, client_order_id=due.client_order_id, seconds=PUT_OFF_S)
            await report_incidents(tx, incidents=[incident])

        await retrying(self.database, work)

    async def _commit(self, due: Sequence[DueOrder]) -> None:
        async with claiming(self.pool) as claims:

            async def work(tx: Transaction) -> Round:
                claims.anew()
                decided = await self._decide(tx, due, claims.jobs)
                await _save(tx, decided)
                claims.written()
                return decided

            decided = await retrying(self.database, work)
        self.recovery.ask(
            {order.client_order_id: order.position_id if counts else None for order, counts in decided.look_ups}
        )

    async def _decide(self, tx: Transaction, due: Sequence[DueOrder], jobs: list[Job]) -> Round:
        before = await lock_books(
            tx,
            position_ids={one.position_id for one in due},
            request_ids={one.close_request_id for one in due},
        )
        checked_at = time.monotonic()
        found = await lock_controls(tx, account_id=self.account_id)
        decided = Round(
            before=before, books=dict(before), now=found.now, controls=found.controls, checked_at=checked_at
        )
        for one in due:
            order = decided.books[one.position_id].orders.get(one.client_order_id)
            if order is not None:
                self._take_step(decided, order, jobs)
        for position_id in decided.withdrawn:
            concluded = conclude(before[position_id], decided.books[position_id], now=decided.now, policy=self.policy)
            decided.books[position_id] = concluded.book
            decided.events += concluded.events
            decided.incidents += concluded.incidents
        return decided

    def _take_step(self, decided: Round, order: Order, jobs: list[Job]) -> None:
        book, now = decided.books[order.position_id], decided.now
        silent = self.watch.silent(order.client_order_id, now=time.monotonic())
        step = next_step(book, order, controls=decided.controls, now=now, watched=silent)
        match step:
            case SendOrder():
                order = self._claim(decided, order, SendKind.SUBMIT, jobs)
            case SendCancel():
                order = self._claim(decided, order, SendKind.CANCEL, jobs)
            case LookUp(absence_counts=counts):
                order = being_looked_up(order, now=now)
                decided.look_ups.append((order, counts))
            case Withdraw():
                log.warning("order_withdrawn", client_order_id=order.client_order_id, code=step.code)
                order = withdrawn(order, step)
                decided.withdrawn[order.position_id] = None
                decided.incidents += [step.incident] if step.incident is not None else []
            case Wait(until=until):
                order = replace(order, next_send_at=until)
            case GiveUp(until=until, incident=incident):
                order = replace(order, next_send_at=until)
                decided.incidents.append(incident)
            case NothingToDo():
                # A guard against looking again and again at an order whose status lags behind its facts.
                order = replace(order, next_send_at=now + timedelta(seconds=30))
            case _:
                assert_never(step)
        decided.books[order.position_id] = replace(book, orders={**book.orders, order.client_order_id: order})

    def _claim(self, decided: Round, order: Order, kind: SendKind, jobs: list[Job]) -> Order:
        """The order with its send claimed; without a free slot it stays due, or waits for the circuit breaker, or for
        its turn among the calls to the broker."""
        if not self.pool.reserve(kind):
            turn_in_s = self.pool.budget.wait_s(Urgency.SEND, ahead=decided.waiting)
            decided.waiting += 1
            resumes_in_s = None if kind is SendKind.CANCEL else self.pool.resumes_in_s()
            wait_s = min(max(turn_in_s, resumes_in_s or 0.0), FARTHEST.total_seconds())
            return replace(order, next_send_at=decided.now + timedelta(seconds=wait_s)) if wait_s > 0 else order
        probe = kind is SendKind.SUBMIT and self.pool.probing
        order, send = claim(order, kind, sender=self.instance_id, now=decided.now, lease_s=self.lease_s, probe=probe)
        decided.claimed.append((order, send))
        if kind is SendKind.SUBMIT:
            decided.controls = counted(decided.controls, now=decided.now)
        request = decided.books[order.position_id].requests.get(order.close_request_id)
        traceparent = request.traceparent if request is not None else None
        jobs.append(Job(order=order, send=send, checked_at=decided.checked_at, traceparent=traceparent))
        return order


async def _save(tx: Transaction, decided: Round) -> None:
    changes = [(decided.before[key], book) for key, book in decided.books.items() if book is not decided.before[key]]
    await save_books(tx, changes=changes)
    await insert_sends(tx, sends=decided.claimed)
    if any(send.kind is SendKind.SUBMIT for _, send in decided.claimed):
        await count_submits(tx, controls=decided.controls)
    await insert_events(tx, events=decided.events)
    await report_incidents(tx, incidents=decided.incidents)


async def poll_until_stopped(
    attendant: DueOrderPoller, stop: asyncio.Event, *, interval_s: float, patience: Patience
) -> None:
    """Look, and look again at once while there is more than one look's worth to do."""
    while not stop.is_set():
        try:
            looked_at = await attendant.attend_once()
        except Exception as error:
            await wait_out(error, patience, stop, poll="attend")
            continue
        patience.rewarded()
        if looked_at < MOST_AT_ONCE:
            await wait_for(stop, interval_s)
        else:
            await asyncio.sleep(interval_s / 10)


async def wait_out(error: Exception, patience: Patience, stop: asyncio.Event, *, poll: str) -> None:
    """The poll goes on after an error that passes by itself; raises any other."""
    pause_s = patience.pause_s(error)
    log.warning("poll_failed", poll=poll, reason=patience.trouble, next_in_s=pause_s)
    await wait_for(stop, pause_s)


async def wait_for(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return
