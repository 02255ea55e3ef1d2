"""Ask the broker for everything the stream may not have told us.

The orders are asked for by what we know of them and not by time: the broker's list of orders filters by submission
time, so an order that rested for a day and filled while nobody listened would not be in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker_gateway.outlet import Outlet
from closeflow.broker import Broker, BrokerUnavailable
from closeflow.domain.answers import Acknowledged, NotFound
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import BrokerUpdate, UpdateSource
from closeflow.storage import gateway
from closeflow.storage.engine import Database, transaction

log = structlog.get_logger()

FEED: Final = "fill-activities"
_ORDERS_PER_PAGE: Final = 500
_LOOK_UPS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    broker: Broker
    database: Database
    outlet: Outlet
    overlap: timedelta
    now: Callable[[], datetime]

    async def run_once(self) -> int:
        """Publish what is new: the state of every order of ours that is not done, then the executions since the cursor.

        Returns how many updates were new. Raises `BrokerUnavailable` when something could not be asked for, after
        publishing what could; the cursor then stands at what Kafka has.
        """
        orders = await self._not_done()
        stated, unanswered = await self._state_of(orders)
        found = await self._states([replace(update, source=UpdateSource.BACKFILL) for update in stated])
        found += await self._executions(min((order.created_at for order in orders), default=self.now()))
        log.info("backfill_finished", orders=len(orders), new_updates=found, unanswered=len(unanswered))
        if unanswered:
            raise BrokerUnavailable(f"{len(unanswered)} look-ups without an answer, the first: {unanswered[0]}")
        return found

    async def _not_done(self) -> list[gateway.NotDone]:
        orders: list[gateway.NotDone] = []
        while True:
            after = orders[-1].client_order_id if orders else ""
            async with transaction(self.database) as tx:
                page = await gateway.not_done_orders(
                    tx, account_id=self.broker.account_id, after=after, limit=_ORDERS_PER_PAGE
                )
            orders += page
            if len(page) < _ORDERS_PER_PAGE:
                return orders

    async def _state_of(self, orders: list[gateway.NotDone]) -> tuple[list[BrokerUpdate], list[str]]:
        """Statements of these orders and of whatever else of ours the broker holds open; and why some have none.

        The list of open orders answers for most of them in one call; the rest are asked for one by one.
        """
        listed = [update for update in await self.broker.open_orders() if parse_client_order_id(update.client_order_id)]
        names = {update.client_order_id for update in listed}
        asked = asyncio.Semaphore(_LOOK_UPS_AT_ONCE)

        async def look_up(client_order_id: str) -> BrokerUpdate | str | None:
            async with asked:
                answer = await self.broker.look_up(client_order_id)
            if isinstance(answer, Acknowledged):
                return answer.update
            return None if isinstance(answer, NotFound) else answer.reason

        rest = (order.client_order_id for order in orders if order.client_order_id not in names)
        answers = await asyncio.gather(*map(look_up, rest))
        stated = [answer for answer in answers if isinstance(answer, BrokerUpdate)]
        return listed + stated, [answer for answer in answers if isinstance(answer, str)]

    async def _states(self, stated: list[BrokerUpdate]) -> int:
        """Publish what is new of the orders. That one which was declared lost is there is news, however often it was
        said before."""
        async with transaction(self.database) as tx:
            lost = await gateway.lost_orders(tx, client_order_ids={one.client_order_id for one in stated})
        await self.outlet.publish([one for one in stated if one.client_order_id in lost])
        return len(lost) + await self.outlet.publish_news(one for one in stated if one.client_order_id not in lost)

    async def _executions(self, oldest: datetime) -> int:
        cursor_key = {"broker": self.broker.name, "account_id": self.broker.account_id, "feed": FEED}
        async with transaction(self.database) as tx:
            cursor = await gateway.read_cursor(tx, **cursor_key)
        after = (cursor or oldest) - self.overlap
        found, page = 0, None
        unnamed: list[str] = []
        while True:
            executions = await self.broker.executions(after=after, page=page)
            found += await self.outlet.publish_news(executions.updates)
            unnamed += executions.unnamed
            newest = _newest(executions.updates)
            # Nothing is behind the cursor that may still be had, and nothing holds up the others.
            if not unnamed and newest is not None and (cursor is None or newest > cursor):
                async with transaction(self.database) as tx:
                    await gateway.advance_cursor(tx, **cursor_key, position=newest)
                cursor = newest
            if executions.next_page is None and unnamed:
                raise BrokerUnavailable(f"{len(unnamed)} executions without a name, the first: {unnamed[0]}")
            if executions.next_page is None:
                return found
            page = executions.next_page


def _newest(updates: Iterable[BrokerUpdate]) -> datetime | None:
    return max((update.transact_time for update in updates), default=None)
