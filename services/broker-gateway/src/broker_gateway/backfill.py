"""Ask the broker for everything the stream may not have told us.

The orders are asked for by what we know of them and not by time: the broker's list of orders filters by submission
time, so an order that rested for a day and filled while nobody listened would not be in it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker_gateway.publisher import Outlet
from closeflow.broker import Broker, BrokerUnavailable
from closeflow.broker.asking import newest_by_id
from closeflow.clock import monotonic
from closeflow.domain.frozen import replace
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import BrokerUpdate, UpdateSource
from closeflow.domain.sending.broker_answers import Acknowledged, NotFound
from closeflow.storage import broker_cursors, due_work
from closeflow.storage.core.engine import Database, database_now, transaction
from closeflow.storage.incidents import report_incidents

log = structlog.get_logger()

FEED: Final = "fill-activities"
_ORDERS_PER_PAGE: Final = 500
_LOOK_UPS_AT_ONCE: Final = 4
_REMEMBERED: Final = 10_000
LOOK_BACK: Final = timedelta(days=1)
"""From where executions are asked for again after a cursor that was ahead."""


@dataclass(slots=True)
class Patience:
    """With executions that have no name yet: their order could not be asked about, or is denied, as one is that the
    broker took but does not show yet. Each is asked about a few times, and for longer than that may last; then it is
    given up, so that it does not hold up the cursor for ever. Forgetting only costs a repetition."""

    tries: int = 5
    for_s: float = 60.0
    _waits: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How often each was asked about, and since when (monotonic seconds)."""
    _given_up: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def lasts(self, activity_id: str, *, now: float) -> bool:
        """Whether the activity is to be asked about once more, and the cursor to wait for it."""
        asked, since = self._waits.get(activity_id, (0, now))
        return activity_id not in self._given_up and (asked + 1 < self.tries or now - since < self.for_s)

    def count(self, asked: Iterable[str], *, now: float) -> None:
        """Another reading ended in which these had no name; whatever else was waited for came."""
        before = {one: self._waits.get(one, (0, now)) for one in asked}
        self._waits = {one: (times + 1, since) for one, (times, since) in before.items()}

    def give_up(self, activity_ids: Iterable[str]) -> list[str]:
        """Those that were not given up before."""
        news = [one for one in dict.fromkeys(activity_ids) if one not in self._given_up]
        self._given_up |= dict.fromkeys(news)
        while len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)
        return news


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Reads from a cursor in the database, so that a new instance goes on where the last one stopped."""

    broker: Broker
    database: Database
    outlet: Outlet
    overlap: timedelta
    patience: Patience = field(default_factory=Patience)

    async def run_once(self) -> int:
        """Publish what is new: the state of every order of ours that is not done, then the executions since the cursor.

        Returns how many updates were new. Raises `BrokerUnavailable` when something could not be asked for, after
        publishing what could; the cursor then stands at what Kafka has.
        """
        orders = await self._not_done()
        try:
            stated, unanswered = await self._state_of(orders)
        except BrokerUnavailable as error:
            # The list could not be had; the executions may be had all the same.
            stated, unanswered = [], [error.reason]
        found = await self._states([replace(update, source=UpdateSource.BACKFILL) for update in stated])
        found += await self._executions([order.created_at for order in orders])
        log.info("backfill_finished", orders=len(orders), new_updates=found, unanswered=len(unanswered))
        if unanswered:
            raise BrokerUnavailable(f"{len(unanswered)} questions without an answer, the first: {unanswered[0]}")
        return found

    async def _not_done(self) -> list[due_work.NotDone]:
        orders: list[due_work.NotDone] = []
        while True:
            after = orders[-1].client_order_id if orders else ""
            async with transaction(self.database) as tx:
                page = await due_work.not_done_orders(
                    tx, account_id=self.broker.account_id, after=after, limit=_ORDERS_PER_PAGE
                )
            orders += page
            if len(page) < _ORDERS_PER_PAGE:
                return orders

    async def _state_of(self, orders: list[due_work.NotDone]) -> tuple[list[BrokerUpdate], list[str]]:
        """Statements of these orders and of whatever else of ours the broker holds open; and why some have none.

        The list of open orders answers for most of them in one call, that of the newest for those that just ended; the
        rest are asked for one by one, and so is what the list has of ours and cannot be read.
        """
        open_ = await self.broker.open_orders()
        listed = [update for update in open_.updates if parse_client_order_id(update.client_order_id)]
        names = {update.client_order_id for update in listed}
        wanted = dict.fromkeys([*(order.client_order_id for order in orders), *open_.unreadable])
        missing = wanted.keys() - names
        newest = await newest_by_id(self.broker, wanted=len(missing))
        listed += [newest[one] for one in missing & newest.keys()]
        names |= newest.keys()
        asked = asyncio.Semaphore(_LOOK_UPS_AT_ONCE)

        async def look_up(client_order_id: str) -> BrokerUpdate | str | None:
            async with asked:
                answer = await self.broker.look_up(client_order_id)
            if isinstance(answer, Acknowledged):
                return answer.update
            return None if isinstance(answer, NotFound) else answer.reason

        rest = (client_order_id for client_order_id in wanted if client_order_id not in names)
        answers = await asyncio.gather(*map(look_up, rest))
        stated = [answer for answer in answers if isinstance(answer, BrokerUpdate)]
        return listed + stated, [answer for answer in answers if isinstance(answer, str)]

    async def _states(self, stated: list[BrokerUpdate]) -> int:
        """Publish what is new of the orders. That one which was declared lost is there is news, however often it was
        said before."""
        async with transaction(self.database) as tx:
            lost = await due_work.lost_orders(tx, client_order_ids={one.client_order_id for one in stated})
        await self.outlet.publish([one for one in stated if one.client_order_id in lost])
        return len(lost) + await self.outlet.publish_news(one for one in stated if one.client_order_id not in lost)

    async def _executions(self, made: Sequence[datetime]) -> int:
        """Those since the cursor, or since the first of the orders was made."""
        cursor_key = {"broker": self.broker.name, "account_id": self.broker.account_id, "feed": FEED}
        async with transaction(self.database) as tx:
            cursor, now = await broker_cursors.read_cursor(tx, **cursor_key), await database_now(tx)
        oldest, beyond = min(made, default=now), await self._end_of_time(cursor, now)
        if beyond is not None:
            log.warning("cursor_ahead_of_the_broker", cursor=cursor, clock=beyond)
            cursor, oldest = None, min(oldest, beyond - LOOK_BACK)
        if self.outlet.take_lost():
            log.warning("executions_read_again", cursor=cursor, since=oldest)
            cursor = None
        after = (cursor or oldest) - self.overlap
        found, page = 0, None
        waited_for: list[str] = []
        while True:
            executions = await self.broker.executions(after=after, page=page)
            found += await self.outlet.publish_news(executions.updates)
            at = monotonic()
            waiting = [one for one in executions.left_out if self.patience.lasts(one, now=at)]
            await self._tell_of([one for one in executions.left_out if one not in waiting])
            waited_for += waiting
            newest = executions.through
            # Nothing is behind the cursor that may still be had, and nothing holds up the others.
            if not waited_for and newest is not None and (cursor is None or newest > cursor):
                async with transaction(self.database) as tx:
                    await broker_cursors.advance_cursor(tx, **cursor_key, position=newest, beyond=beyond)
                cursor = newest
            page = executions.next_page
            if page is None:
                break
        self.patience.count(waited_for, now=monotonic())
        if waited_for:
            raise BrokerUnavailable(f"{len(waited_for)} executions without a name, the first: {waited_for[0]}")
        return found

    async def _end_of_time(self, cursor: datetime | None, now: datetime) -> datetime | None:
        """What the broker's clock shows, if the cursor is ahead even of that: then a clock was wrong when it was moved,
        and what comes would lie behind it. Asked for only where it is ahead of the database's, which may be slow."""
        if cursor is None or cursor <= now:
            return None
        clock = (await self.broker.clock()).at
        return clock if cursor > clock else None

    async def _tell_of(self, given_up: Sequence[str]) -> None:
        """One incident per account: if a fill of ours is among them, its order states more than is booked, and that is
        an incident of its own (rule R4)."""
        news = self.patience.give_up(given_up)
        if not news:
            return
        detail = f"executions that cannot be read, or whose order the broker does not tell: {', '.join(news[:20])}"
        incident = about(IncidentKind.EXECUTION_LEFT_OUT, detail, subject=self.broker.account_id)
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=[incident])
