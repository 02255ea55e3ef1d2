"""Attend to orders that are due: unsent plans, repeats, unknown outcomes, cancels. Every instance polls them all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from closeflow.clock import monotonic, sleep, timeout
from closeflow.domain.close.due_orders import DueResult, Known, attend
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Incident
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending.claim import Sender
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.away import Patience
from closeflow.storage.core.engine import Database, StatementError, Transaction, retrying, transaction
from closeflow.storage.due_work import DueOrder, due_orders, put_off
from closeflow.storage.incidents import report_incidents
from closeflow.storage.trading_controls import lock_controls
from closeflow.unit_of_work import MoveRefused, apart_where_one_breaks, first_line, save
from order_submitter.look_up import Recovery, Watch
from order_submitter.sending.claims import claiming
from order_submitter.sending.pool import SenderPool

log = structlog.get_logger(__name__)

MOST_AT_ONCE: Final = 64
PUT_OFF_S: Final = 60.0
IDLE_AT_MOST: Final = 2.5
"""Times the interval: while nothing is due, what becomes due is seen so late at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueOrderPoller:
    """Safe with several instances: what one claims, the others see under the rows' locks."""

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
        # One that breaks a transaction of its own is put off for a person: it must not hold up the account.
        if due:
            await apart_where_one_breaks(due, self._commit, alone=self._put_off)
        return len(due)

    async def _put_off(self, due: DueOrder, error: StatementError | MoveRefused) -> None:
        log.error("order_not_attended", client_order_id=due.client_order_id, exc_info=error)
        incident = Incident(
            kind=IncidentKind.ORDER_NOT_ATTENDED,
            severity="critical",
            detail=f"what is due for this order cannot be written: {first_line(error)}",
            position_id=due.position_id,
            close_request_id=due.close_request_id,
            client_order_id=due.client_order_id,
        )

        async def work(tx: Transaction) -> None:
            await put_off(tx, client_order_id=due.client_order_id, seconds=PUT_OFF_S)
            await report_incidents(tx, incidents=[incident])

        await retrying(self.database, work)

    async def _commit(self, due: Sequence[DueOrder]) -> None:
        """Commit what is decided about the orders, then start it."""
        async with claiming(self.pool) as claims:
            sender = Sender(instance_id=self.instance_id, lease_s=self.lease_s, turns=claims)

            async def work(tx: Transaction) -> DueResult:
                claims.anew()
                books = await lock_books(
                    tx,
                    position_ids={one.position_id for one in due},
                    request_ids={one.close_request_id for one in due},
                )
                checked_at = monotonic()
                held = await lock_controls(tx, account_id=self.account_id)
                watched = {one.client_order_id: self.watch.silent(one.client_order_id, now=checked_at) for one in due}
                known = Known(books=books, controls=held.controls, now=held.now, watched=watched)
                named = [(one.position_id, one.client_order_id) for one in due]
                result = attend(known, named, sender=sender, policy=self.policy)
                await save(tx, result)
                claims.written(result, checked_at=checked_at)
                return result

            result = await retrying(self.database, work)
        for client_order_id, code in result.withdrawn:
            log.warning("order_withdrawn", client_order_id=client_order_id, code=code)
        self.recovery.ask(
            {order.client_order_id: order.position_id if counts else None for order, counts in result.look_ups}
        )


async def poll_until_stopped(
    attendant: DueOrderPoller, stop: asyncio.Event, *, interval_s: float, patience: Patience
) -> None:
    """Look, and look again at once while there is more than one look's worth to do; after looks that found nothing,
    only so much later that nobody waits long for it."""
    pause_s = interval_s
    while not stop.is_set():
        try:
            looked_at = await attendant.attend_once()
        except Exception as error:
            await wait_out(error, patience, stop, poll="attend")
            continue
        patience.rewarded()
        pause_s = interval_s if looked_at else min(1.5 * pause_s, IDLE_AT_MOST * interval_s)
        if looked_at < MOST_AT_ONCE:
            await wait_for(stop, pause_s)
        else:
            await sleep(interval_s / 10)


async def wait_out(error: Exception, patience: Patience, stop: asyncio.Event, *, poll: str) -> None:
    """The poll goes on after an error that passes by itself; raises any other."""
    pause_s = patience.pause_s(error)
    log.warning("poll_failed", poll=poll, reason=patience.trouble, next_in_s=pause_s)
    await wait_for(stop, pause_s)


async def wait_for(stop: asyncio.Event, timeout_s: float) -> None:
    """Wait so long, or until stopped."""
    try:
        async with timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return
