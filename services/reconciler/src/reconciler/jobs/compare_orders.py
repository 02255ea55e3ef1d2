"""After a promotion or a restore of the database: the broker's orders against ours, before anything is sent again.

A database has another history then (`closeflow_history()`), and may lack what was committed last. Until this job has
noted the new history, `lock_controls` halts the account: closes are accepted, and no order leaves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable, ExecutionPage, OpenOrders
from closeflow.clock import monotonic
from closeflow.domain.close.unrecorded_orders import hold_positions
from closeflow.domain.enums import SENDABLE
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import BrokerUpdate, Incident
from closeflow.kafka.producer import Producer
from closeflow.storage.account_histories import (
    History,
    held_positions,
    note_history,
    order_statuses,
    positions_of_requests,
    read_history,
)
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying, transaction
from closeflow.storage.incidents import close_incidents_about, report_incidents
from closeflow.unit_of_work import save
from reconciler.jobs.ask_quiet_orders import publish

log = structlog.get_logger(__name__)

LOOK_BACK: Final = timedelta(minutes=15)
"""From how long before the last look at the old history executions are read: clocks differ, and sends take a while."""
PAGES: Final = 1000


@dataclass(slots=True)
class CompareOrders:
    """What the broker has open, and what it executed since the old history was seen last, is published again, so that
    fills which the database lost are booked; an order that is in no row of ours is told and its position held.

    `settle_after` is how long a send that began before the change may still be on its way: the broker is asked only
    then. An order whose statements the fill-processor has not applied yet is waited for.
    """

    database: Database
    broker: Broker
    producer: Producer
    settle_after: timedelta
    ids_are_taken_for_ever: bool
    _since: tuple[str, float] | None = None
    """The history that is not settled, and since when this process sees it (monotonic seconds)."""
    _published: bool = False

    async def once(self) -> int:
        """Returns how many orders of ours were found that the database does not have."""
        async with cycle_alone(self.database, "compare_orders") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        account_id = self.broker.account_id
        async with transaction(self.database) as tx:
            history = await read_history(tx, account_id=account_id)
            if history.is_settled:
                await note_history(tx, account_id=account_id)
                await self._close_incident(tx)
                self._since = None
                return 0
            await report_incidents(tx, incidents=[_changed(account_id, history)])
        now = monotonic()
        if self._since is None or self._since[0] != history.now:
            self._since, self._published = (history.now, now), False
            log.error("database_changed_history", noted=history.noted, now=history.now, seen_at=history.seen_at)
        if now - self._since[1] < self.settle_after.total_seconds():
            return 0
        try:
            stated, unreadable = await self._stated(history)
        except BrokerUnavailable as error:
            log.warning("orders_not_compared", reason=error.reason)
            return 0
        if not self._published:
            await publish(self.producer, stated)
            self._published = True
        return await self._settle({one.client_order_id: one.symbol for one in stated}, unreadable)

    async def _stated(self, history: History) -> tuple[list[BrokerUpdate], tuple[str, ...]]:
        """What the broker says of our orders that are open or executed something; and what it has open and cannot be
        read. An order that ended without a fill holds nothing and can fill nothing."""
        assert history.seen_at is not None, "a history that was noted has been seen"
        open_: OpenOrders = await self.broker.open_orders()
        found, page = list(open_.updates), None
        for _ in range(PAGES):
            read: ExecutionPage = await self.broker.executions(after=history.seen_at - LOOK_BACK, page=page)
            if read.unnamed:
                raise BrokerUnavailable(f"{len(read.unnamed)} executions whose order it does not tell")
            found += read.updates
            page = read.next_page
            if page is None:
                ours = [one for one in found if parse_client_order_id(one.client_order_id)]
                return ours, open_.unreadable
        raise BrokerUnavailable(f"more than {PAGES} pages of executions")

    async def _settle(self, symbols: Mapping[str, str], unreadable: Collection[str]) -> int:
        """Hold the positions of what is not there, and note the history, in one transaction."""
        names = [*symbols, *unreadable]

        async def work(tx: Transaction) -> list[str] | None:
            statuses = await order_statuses(tx, client_order_ids=names)
            if any(statuses.get(one) in SENDABLE for one in symbols):
                return None
            missing = [one for one in names if one not in statuses]
            positions = await self._positions(tx, missing, symbols)
            books = await lock_books(tx, position_ids=set(positions))
            result = hold_positions(
                books, positions, ids_are_taken_for_ever=self.ids_are_taken_for_ever, now=await database_now(tx)
            )
            await save(tx, result)
            await note_history(tx, account_id=self.broker.account_id)
            await self._close_incident(tx)
            return missing

        missing = await retrying(self.database, work)
        if missing is None:
            log.warning("orders_not_compared", reason="statements of known orders are not applied yet")
            return 0
        self._since = None
        log.warning("orders_compared", stated=len(symbols), not_recorded=missing)
        return len(missing)

    async def _close_incident(self, tx: Transaction) -> None:
        """That of this account: every other one has a reconciler of its own."""
        await close_incidents_about(
            tx,
            kind=IncidentKind.DATABASE_CHANGED_HISTORY,
            subjects=[self.broker.account_id],
            resolution="the orders were compared",
        )

    async def _positions(
        self, tx: Transaction, missing: Sequence[str], symbols: Mapping[str, str]
    ) -> dict[int, list[str]]:
        """The orders that are not there, by the positions they may be of: their close's, else all in the symbol."""
        requests = {one: named[0] for one in missing if (named := parse_client_order_id(one))}
        of_requests = await positions_of_requests(tx, request_ids=set(requests.values()))
        rest = {one: symbols[one] for one in missing if requests[one] not in of_requests and one in symbols}
        held = await held_positions(tx, account_id=self.broker.account_id, symbols=set(rest.values()))
        found: defaultdict[int, list[str]] = defaultdict(list)
        for one in missing:
            if requests[one] in of_requests:
                found[of_requests[requests[one]]].append(one)
        for position_id, symbol in held:
            found[position_id] += [one for one, traded in rest.items() if traded == symbol]
        return dict(found)


def _changed(account_id: str, history: History) -> Incident:
    detail = (
        f"the database was promoted or restored: it is {history.now}, and was {history.noted} when it was last seen"
        f" ({history.seen_at:%Y-%m-%d %H:%M:%S} UTC); nothing is sent until the broker's orders are compared"
    )
    return about(IncidentKind.DATABASE_CHANGED_HISTORY, detail, subject=account_id)
