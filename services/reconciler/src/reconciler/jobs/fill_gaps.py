"""Ask the broker for the executions that close a gap (rule R4).

What it says goes to `broker-fill` like everything else it says; nothing of it is booked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.clock import monotonic
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import BrokerUpdate, Incident
from closeflow.kafka.producer import Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, database_now, transaction
from closeflow.storage.due_work import GapOrder, orders_with_gap
from closeflow.storage.incidents import close_gap_incidents, report_incidents
from closeflow.storage.orders_in_doubt import known_executions, orders_in_doubt, withheld_orders
from reconciler.jobs.ask_quiet_orders import Pauses, Rest, publish

log = structlog.get_logger(__name__)

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the broker's clock may be behind ours: executions are asked for from that much before the order was made. One
that is not found so is asked for from when the broker took its order, by the broker's own clock."""
ASKED_BY_ORDER: Final = 20
FAILURES_OF_A_PAGE: Final = 5
"""After so many in a row the reading ends, and the next one begins at the start: the token of a page may have aged."""


class Seen(NamedTuple):
    """When a gap was first seen, and when last, by the process's monotonic clock."""

    first: float
    last: float


def lasting_gaps(
    gaps: Sequence[GapOrder], seen: Mapping[str, Seen], *, now: datetime, patience: timedelta, clock: float
) -> tuple[list[Incident], dict[str, Seen]]:
    """One incident for each gap that is old enough for a person, by the database's time `now` or by this process's own
    wait: updates that do not close it do not make it younger. And which gaps are seen now."""
    wait_s = patience.total_seconds()
    recent = {name: one for name, one in seen.items() if clock - one.last <= wait_s}
    found = {_name(one): one for one in gaps}
    seen = recent | {name: Seen(recent[name].first if name in recent else clock, clock) for name in found}
    old = [one for name, one in found.items() if one.since + patience <= now or clock - seen[name].first >= wait_s]
    return [_gap(one) for one in old], seen


@dataclass(slots=True)
class Reading:
    """The list of executions since a time, and how far it was read."""

    after: datetime
    wanted: frozenset[str]
    """The gaps that were there when it began: those it has looked for from end to end."""
    page: str | None = None
    failures: int = 0


@dataclass(slots=True)
class FillGaps:
    """Read the broker's executions, oldest first, for orders of which it states more than we can name, for those with
    a trade that is withheld, and of symbols of which it holds another quantity than we do: it may have taken back what
    no feed told.

    A list that is longer than a cycle may read is read on in the next one, and one that breaks off is read on from the
    page that failed. So a gap that opens meanwhile is looked for at the latest by the reading after this one. One
    that a reading did not fill is looked for again after a pause that doubles: it may wait for a person.
    """

    database: Database
    broker: Broker
    producer: Producer
    grace: timedelta
    incident_after: timedelta
    budget: int
    pages: int
    """How many pages of executions one cycle reads."""
    pauses: Pauses = field(default_factory=Pauses)
    rest: Rest = field(default_factory=Rest)
    _reading: Reading | None = None
    _missed: frozenset[str] = frozenset()
    """Orders whose gap a reading from end to end has not filled."""
    _seen: Mapping[str, Seen] = field(default_factory=dict)

    async def once(self) -> int:
        """Returns how many executions were published; what is known already is recognised by its consumer."""
        async with cycle_alone(self.database, "fill_gaps") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        async with transaction(self.database) as tx:
            now = await database_now(tx)
            gaps = await orders_with_gap(
                tx,
                account_id=self.broker.account_id,
                grace=self.grace,
                asked=[name.partition("/")[0] for name in self.pauses.not_before(monotonic())],
                budget=self.budget,
            )
            lasting, self._seen = lasting_gaps(
                gaps, self._seen, now=now, patience=self.incident_after, clock=monotonic()
            )
            await report_incidents(tx, incidents=lasting)
            await close_gap_incidents(tx, kind=IncidentKind.GAP, resolution="the executions were found")
            account = self.broker.account_id
            withheld = await withheld_orders(tx, account_id=account, after=self.incident_after, budget=self.budget)
            await report_incidents(tx, incidents=[_withheld(one) for one in withheld])
            gaps += withheld
            gaps += await orders_in_doubt(tx, account_id=account, budget=self.budget)
        if not gaps:
            self._reading = None
            return 0
        self._missed &= {one.client_order_id for one in gaps}
        if self.rest.is_on(monotonic()) or not await self._begun(gaps):
            return 0
        published = await self._read_on({one.client_order_id for one in gaps})
        log.info("gaps_asked_about", orders=len(gaps), published=published, read_on=self._reading is not None)
        return published

    async def _begun(self, gaps: Sequence[GapOrder]) -> bool:
        """Whether there is a reading to go on with, or one was begun because of a gap whose pause is over."""
        if self._reading is None:
            wanted = frozenset(map(_name, gaps))
            if wanted <= set(self.pauses.not_before(monotonic())):
                return False
            taken = await self._taken_at([one.client_order_id for one in gaps if one.client_order_id in self._missed])
            self._reading = Reading(min([*(one.created_at for one in gaps), *taken]) - CLOCKS_APART, wanted)
        return True

    async def _taken_at(self, missed: Sequence[str]) -> list[datetime]:
        """When the broker took these orders, as far as it says: a clock of ours may have been wrong when they were
        made, and then nothing of theirs is behind that time."""
        found: list[datetime] = []
        for client_order_id in missed[:ASKED_BY_ORDER]:
            try:
                at = await self.broker.submitted_at(client_order_id)
            except BrokerUnavailable as error:
                log.warning("order_not_dated", client_order_id=client_order_id, reason=error.reason)
                self.rest.extend(error.retry_after_s, monotonic())
                break
            found += [at] if at is not None else []
        return found

    async def _read_on(self, wanted: set[str]) -> int:
        """Publish the wanted of the executions on the next pages."""
        published = 0
        for _ in range(self.pages):
            if (reading := self._reading) is None:
                break
            try:
                read = await self.broker.executions(after=reading.after, page=reading.page)
            except BrokerUnavailable as error:
                log.warning("executions_not_listed", reason=error.reason, failures=reading.failures + 1)
                self.rest.extend(error.retry_after_s, monotonic())
                reading.failures += 1
                if reading.failures >= FAILURES_OF_A_PAGE:
                    self._end(reading)
                break
            found = await self._unknown([one for one in read.updates if one.client_order_id in wanted])
            await publish(self.producer, found)
            published += len(found)
            reading.page, reading.failures = read.next_page, 0
            if reading.page is None:
                self._end(reading)
        return published

    async def _unknown(self, updates: Sequence[BrokerUpdate]) -> list[BrokerUpdate]:
        async with transaction(self.database) as tx:
            known = await known_executions(tx, updates)
        return [one for one in updates if one.exec_id not in known]

    def _end(self, reading: Reading) -> None:
        self._reading = None
        self._missed |= {gap.partition("/")[0] for gap in reading.wanted}
        for gap in reading.wanted:
            self.pauses.asked(gap, monotonic())


def _name(order: GapOrder) -> str:
    """Another one when the gap grows or shrinks: then the broker has said something new."""
    return f"{order.client_order_id}/{order.missing}"


def _gap(order: GapOrder) -> Incident:
    detail = f"the broker states {order.missing} more filled than its executions name"
    return about_order(order, IncidentKind.GAP, detail)


def _withheld(order: GapOrder) -> Incident:
    detail = f"{order.missing} that a feed names is not booked: the broker states no more than what is"
    return about_order(order, IncidentKind.EXECUTION_WITHHELD, detail)
