"""Listen to the broker and ask it: whatever it says goes to `broker-fill`, from one instance per account at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NoReturn

import structlog

from broker_gateway.backfill import Backfill, Patience
from broker_gateway.publisher import SERVICE, Memory, Outlet
from closeflow.broker import Broker, BrokerUnavailable
from closeflow.broker.trade_updates import Message, StreamLost, TradeUpdates, Unreadable
from closeflow.clock import sleep, timeout
from closeflow.domain.model import BrokerUpdate
from closeflow.kafka import KafkaConnection, KafkaError, open_producer
from closeflow.run import EndedUnasked
from closeflow.storage.advisory_locks import LockLost, session_lock
from closeflow.storage.broker_cursors import DATABASE_AWAY
from closeflow.storage.core.engine import Database
from closeflow.tasks import end_tasks
from closeflow.telemetry.metrics import counter, gauge

log = structlog.get_logger()

ACTIVE: Final = gauge("closeflow_gateway_active")
LISTENING: Final = gauge("closeflow_gateway_listening")
RECONNECTS: Final = counter("closeflow_gateway_reconnects_total")
BACKFILL_FAILURES: Final = counter("closeflow_gateway_backfill_failures_total")

_WAITING_UPDATES: Final = 4096
_BATCH: Final = 512
_LOCK_PROBE_S: Final = 2.0


@dataclass(slots=True)
class BackOff:
    """Full jitter: the pause is uniform between 0 and a limit that doubles with every failure in a row."""

    base_s: float
    cap_s: float
    failures: int = 0

    def next_s(self) -> float:
        """Seconds to wait: drawn from 0 to a limit that doubles up to the cap, so that instances do not come
        together."""
        limit = min(self.cap_s, self.base_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return random.uniform(0, limit)

    def reset(self) -> None:
        """It went well: the limit is the first one again."""
        self.failures = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`backfill_overlap_s` is how late an execution may appear in the broker's list; the rest are pauses."""

    backfill_interval_s: float
    backfill_overlap_s: float
    reconnect_base_s: float
    reconnect_cap_s: float
    takeover_poll_s: float


@dataclass(slots=True, kw_only=True)
class Relay:
    """Runs for ever: waits for the account's lock, then listens and backfills as long as it is held."""

    broker: Broker
    stream: TradeUpdates
    database: Database
    lock_dsn: str
    """Of the same database; the lock has a connection of its own."""
    kafka: KafkaConnection
    pace: Pace
    memory: Memory = field(default_factory=Memory)
    patience: Patience = field(default_factory=Patience)
    trouble: dict[str, str | None] = field(default_factory=lambda: {"database": "not connected yet", "stream": None})

    async def readiness(self) -> Mapping[str, str | None]:
        """A passive instance is ready too: it has nothing to listen to."""
        return self.trouble

    async def run(self) -> None:
        """Wait for the account's lock, then listen and backfill while it is held; never returns."""
        account = self.broker.account_id
        ACTIVE.labels(account).set(0)
        LISTENING.labels(account).set(0)
        back_off = self._back_off()
        name = f"{SERVICE}/{self.broker.name}/{account}"
        while True:
            try:
                async with session_lock(self.lock_dsn, name=name, application_name=SERVICE) as lock:
                    self.trouble["database"] = None
                    log.info("account_lock_awaited", lock=name)
                    await lock.acquire(poll_s=self.pace.takeover_poll_s)
                    log.info("account_lock_taken", lock=name)
                    back_off.reset()
                    with self._leading():
                        await race(lock.watch(probe_s=_LOCK_PROBE_S), self._keep_connected())
            except LockLost as error:
                self.trouble["database"] = str(error)
                log.error("account_lock_lost", lock=name, reason=str(error))
            await sleep(back_off.next_s())

    @contextmanager
    def _leading(self) -> Iterator[None]:
        ACTIVE.labels(self.broker.account_id).set(1)
        self.trouble["stream"] = "not connected yet"
        try:
            yield
        finally:
            ACTIVE.labels(self.broker.account_id).set(0)
            self.trouble["stream"] = None

    async def _keep_connected(self) -> None:
        back_off = self._back_off()
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                await self._session()
            except (StreamLost, KafkaError, *DATABASE_AWAY) as error:
                self.trouble["stream"] = f"{type(error).__name__}: {error}"
                RECONNECTS.inc()
                log.warning("session_ended", reason=self.trouble["stream"])
            if clock() - started > back_off.cap_s:
                back_off.reset()
            await sleep(back_off.next_s())

    async def _session(self) -> None:
        """One connection to the broker with one producer. It is subscribed before the first backfill asks anything, so
        that what happens in between comes twice and not never."""
        async with (
            open_producer(self.kafka) as producer,
            self.stream() as messages,
        ):
            self.trouble["stream"] = None
            LISTENING.labels(self.broker.account_id).set(1)
            log.info("stream_subscribed")
            outlet = Outlet(producer, self.memory)
            missed = asyncio.Event()
            try:
                await race(self._pass_on(messages, outlet, missed), self._keep_backfilling(outlet, missed))
            finally:
                LISTENING.labels(self.broker.account_id).set(0)

    async def _pass_on(self, messages: AsyncIterator[Message], outlet: Outlet, missed: asyncio.Event) -> None:
        """Publish in the stream's order, each time all that arrived while the last batch was acknowledged."""
        waiting: asyncio.Queue[Message | Exception] = asyncio.Queue(_WAITING_UPDATES)
        reading = asyncio.create_task(_read(messages, waiting))
        try:
            while True:
                batch = [await waiting.get()]
                while len(batch) < _BATCH and not waiting.empty():
                    batch.append(waiting.get_nowait())
                updates = [item for item in batch if isinstance(item, BrokerUpdate)]
                if updates:
                    await outlet.publish(updates)
                if any(isinstance(item, Unreadable) for item in batch):
                    missed.set()
                for item in batch:
                    if isinstance(item, Exception):
                        raise item
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _keep_backfilling(self, outlet: Outlet, missed: asyncio.Event) -> None:
        backfill = Backfill(
            broker=self.broker,
            database=self.database,
            outlet=outlet,
            overlap=timedelta(seconds=self.pace.backfill_overlap_s),
            patience=self.patience,
        )
        await keep_backfilling(backfill.run_once, missed, self.pace)

    def _back_off(self) -> BackOff:
        return BackOff(self.pace.reconnect_base_s, self.pace.reconnect_cap_s)


async def keep_backfilling(run_once: Callable[[], Awaitable[int]], missed: asyncio.Event, pace: Pace) -> NoReturn:
    """Now and every so often, and soon when something was missed. One that fails is done again, and the stream goes on
    whatever it failed for: what it tells meanwhile is not asked for in vain."""
    back_off = BackOff(pace.reconnect_base_s, pace.reconnect_cap_s)
    while True:
        missed.clear()
        try:
            await run_once()
            back_off.reset()
            pause_s = pace.backfill_interval_s
        except (BrokerUnavailable, *DATABASE_AWAY) as error:
            BACKFILL_FAILURES.inc()
            pause_s = max(getattr(error, "retry_after_s", None) or 0.0, back_off.next_s())
            log.warning("backfill_failed", reason=str(error), next_in_s=round(pause_s, 3))
        try:
            async with timeout(pause_s):
                await missed.wait()
            # Many unreadable messages in a row ask for one backfill each pause, not for one each.
            await sleep(pace.reconnect_base_s)
        except TimeoutError:
            pass


async def _read(messages: AsyncIterator[Message], into: asyncio.Queue[Message | Exception]) -> None:
    """What ends the stream is queued behind its last message, so that nothing that was read is lost."""
    try:
        async for message in messages:
            await into.put(message)
    except Exception as error:
        await into.put(error)


async def race(*entrants: Coroutine[Any, Any, None]) -> None:
    """Run them until the first ends, cancel the others, and end as the first did. Raises EndedUnasked where that was
    cancelled, which nobody but us may do."""
    tasks = [asyncio.ensure_future(entrant) for entrant in entrants]
    done: set[asyncio.Future[None]] = set()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(tasks)
    if any(task.cancelled() for task in done):
        raise EndedUnasked("cancelled by nobody of ours")
    for task in tasks:
        if not task.cancelled():
            task.result()
