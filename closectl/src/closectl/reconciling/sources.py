"""Read the three sources: the broker's list first, then a snapshot of the ledger, then the events to their ends.

So what one of them says can be in those that are read after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from closectl.broker import Account, make_broker
from closectl.reconciling.compare import ToldEvents
from closectl.reconciling.lines import Listing, Unread, from_updates
from closectl.reconciling.told import read_told, written_at
from closeflow.broker.protocol import Broker, BrokerUnavailable, ExecutionPage
from closeflow.contracts.topics import EXECUTION_EVENTS
from closeflow.domain.model import BrokerUpdate
from closeflow.kafka import KafkaConnection
from closeflow.kafka.read_to_end import Offsets, TailRecord, open_tail
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.ledger_rows import Ledger, load_first_order_at, load_ledger
from closeflow.storage.verify.snapshot import snapshot

__all__ = ["BrokerUnavailable", "Listed", "ask_listed", "first_order_at", "read_events", "read_ledger"]

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the broker's clock may be from ours."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the broker lists, before the ledger says which of it is ours."""

    account_id: str
    updates: tuple[BrokerUpdate, ...]
    left_out: tuple[str, ...]

    def against(self, ledger: Ledger) -> Listing:
        """Its lines, each with what an execution of its order is worth."""
        listing = from_updates(self.updates, ledger.orders, self.account_id)
        unread = [
            Unread(f"activity {name}", "cannot be read, or the broker denies its order") for name in self.left_out
        ]
        return Listing(listing.lines, listing.accounts, listing.foreign, [*listing.unread, *unread], listing.between)


async def read_ledger(database: Database) -> Ledger:
    """Every execution that is booked, in one snapshot."""
    async with snapshot(database) as tx:
        return await load_ledger(tx)


async def first_order_at(database: Database) -> datetime | None:
    """When the first order was made that the broker could have executed; None where there is none."""
    async with snapshot(database) as tx:
        return await load_first_order_at(tx)


async def ask_listed(account: Account, since: datetime) -> Listed:
    """Every execution that the broker lists since then. Raises BrokerUnavailable."""
    broker = make_broker(account)
    try:
        return await _listed(broker, since)
    finally:
        await broker.aclose()


async def _listed(broker: Broker, since: datetime) -> Listed:
    found: ExecutionPage | None = None
    page: str | None = None
    while True:
        read = await broker.executions(after=since - CLOCKS_APART, page=page)
        if read.unnamed:
            raise BrokerUnavailable(f"it does not say of which orders its executions {', '.join(read.unnamed)} are")
        found = read if found is None else found + read
        page = read.next_page
        if page is None:
            return Listed(broker.account_id, found.updates, found.passed_over)


async def read_events(kafka: KafkaConnection, topic: str = EXECUTION_EVENTS) -> ToldEvents:
    """Every accounting event up to the present ends. Raises KafkaError, OSError, LookupError and TimeoutError."""
    async with open_tail(kafka, [topic], None) as tail:
        begins = await tail.positions()
        records = await tail.drain()
    return ToldEvents(*read_told(records), since=_whole_since(begins, records))


def _whole_since(begins: Offsets, records: list[TailRecord]) -> datetime | None:
    """Since when every event is there: None where nothing was ever removed from the topic."""
    since: datetime | None = None
    for (_, number), begin in begins.items():
        if begin > 0:
            times = [at for one in records if one.partition == number if (at := written_at(one)) is not None]
            first = min(times, default=datetime.max.replace(tzinfo=UTC))
            since = first if since is None else max(since, first)
    return since
