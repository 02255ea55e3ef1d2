"""Orders whose fate is unknown: look them up, count evidence of absence, and repeat an id where that is proven safe."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from closeflow.broker import Broker, BrokerUnavailable, IdDeduplication
from closeflow.broker.asking import newest_by_id
from closeflow.broker.evidence import gather
from closeflow.clock import monotonic
from closeflow.domain.model import BrokerUpdate, Order, SendKind
from closeflow.domain.sending.absence import AbsenceResult, AbsenceRules, Asked, decide_not_found
from closeflow.domain.sending.broker_answers import Acknowledged, LookUpAnswer, NotFound
from closeflow.domain.sending.claim import Sender, next_number
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import Database, Transaction, retrying
from closeflow.storage.order_sends import UnansweredSend
from closeflow.storage.orders_in_doubt import load_known
from closeflow.storage.trading_controls import lock_controls
from closeflow.telemetry.metrics import counter
from closeflow.unit_of_work import save
from order_submitter.sending.claims import claiming
from order_submitter.sending.pool import SenderPool
from order_submitter.sending.publish import FillPublisher

log = structlog.get_logger(__name__)

LOOK_UPS: Final = counter("closeflow_look_ups_total")
LOOK_UPS_AT_ONCE: Final = 16
WATCHED_AT_MOST: Final = 10_000
TRANSACTIONS_AT_ONCE: Final = 2
"""So that look-ups cannot keep planning and answers from the database's connections."""


class Watch:
    """What this process has itself seen for how long, by its own monotonic clock: sends without an answer, and orders
    that the broker does not find. `now` is monotonic seconds."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._since: dict[tuple[str, int], float] = {}
        self._orders: dict[str, list[int]] = {}
        self._absent: dict[str, tuple[tuple[int, frozenset[str]], float]] = {}
        """Client order id to its last send and known exits, and when it was first not found after both."""

    def saw(self, sends: Iterable[UnansweredSend], *, now: float) -> None:
        """Everything that is unanswered now; what is not among it is forgotten."""
        orders: defaultdict[str, list[int]] = defaultdict(list)
        for one in sends:
            orders[one.client_order_id].append(one.n)
        self._since = {(key, n): self._since.get((key, n), now) for key, numbers in orders.items() for n in numbers}
        self._orders = dict(orders)

    def silent(self, client_order_id: str, *, now: float) -> frozenset[int]:
        """The numbers of the order's sends that were seen unanswered for a whole lease."""
        return frozenset(
            n for n in self._orders.get(client_order_id, ()) if now - self._since[(client_order_id, n)] >= self._lease_s
        )

    def absent_s(self, order: Order, exited: Collection[str], *, now: float) -> float:
        """How long this process has itself been told that the order is not there, since its last send and since it knew
        of the last exit (`exited`) of a sender that never answered."""
        silent = {one.sender for one in order.sends if one.kind is SendKind.SUBMIT and one.answer is None}
        last = next_number(order, SendKind.SUBMIT), frozenset(silent & set(exited))
        since = self._absent.get(order.client_order_id)
        if since is None or since[0] != last:
            if len(self._absent) >= WATCHED_AT_MOST:
                self._absent.clear()  # Watching begins anew, which only puts the incident off.
            since = self._absent[order.client_order_id] = (last, now)
        return now - since[1]

    def found(self, client_order_id: str) -> None:
        """The broker has the order: if it is not found later, that is counted from then."""
        self._absent.pop(client_order_id, None)


class Recovery:
    """Look-ups, at most one at a time per order."""

    def __init__(
        self,
        *,
        database: Database,
        broker: Broker,
        publisher: FillPublisher,
        pool: SenderPool,
        watch: Watch,
        instance_id: str,
        lease_s: float,
        absent_for: timedelta,
    ) -> None:
        """`absent_for` is the window of absence of rule R6."""
        self._database = database
        self._broker = broker
        self._publisher = publisher
        self._pool = pool
        self._watch = watch
        self._instance_id = instance_id
        self._lease_s = lease_s
        self._rules = AbsenceRules(
            within=absent_for,
            forgets_no_id=broker.capabilities.client_id_deduplication is IdDeduplication.FOREVER,
            refuses_to_exceed=broker.capabilities.refuses_to_exceed,
        )
        self._gathering = asyncio.Lock()
        self._look_ups = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._transactions = asyncio.Semaphore(TRANSACTIONS_AT_ONCE)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._listings: set[asyncio.Task[Mapping[str, BrokerUpdate]]] = set()

    def ask(self, wanted: Mapping[str, int | None]) -> None:
        """Start to look up these client order ids, unless that is under way. With a position id an explicit not-found
        counts as evidence."""
        fresh = {one: position_id for one, position_id in wanted.items() if one not in self._running}
        if not fresh:
            return
        listing = asyncio.create_task(newest_by_id(self._broker, wanted=len(fresh)))
        self._listings.add(listing)
        listing.add_done_callback(self._listings.discard)
        for client_order_id, position_id in fresh.items():
            self._running[client_order_id] = asyncio.create_task(self._ask(client_order_id, position_id, listing))

    async def stop(self) -> None:
        """Cut look-ups off: they are reads, and asked again by whoever comes next."""
        running = [*self._running.values(), *self._listings]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _ask(
        self, client_order_id: str, position_id: int | None, listing: asyncio.Task[Mapping[str, BrokerUpdate]]
    ) -> None:
        bound = log.bind(client_order_id=client_order_id)
        answer: LookUpAnswer
        try:
            listed = await asyncio.shield(listing)
            if client_order_id in listed:
                answer = Acknowledged(listed[client_order_id])
            else:
                async with self._look_ups:
                    answer = await self._broker.look_up(client_order_id)
            LOOK_UPS.labels(type(answer).__name__).inc()
            match answer:
                case Acknowledged(update):
                    self._watch.found(client_order_id)
                    await self._publisher.publish(update)
                    bound.info("order_found", status=update.order_status)
                case NotFound() if position_id is not None:
                    await self._note_absence(client_order_id, position_id)
                case NotFound():
                    bound.info("order_not_found", counted=False)
                case _:
                    bound.warning("look_up_failed", answer=type(answer).__name__, reason=answer.reason)
        except Exception:
            bound.exception("look_up_abandoned")  # The order stays due, and is asked about again.
        finally:
            self._running.pop(client_order_id, None)

    async def _note_absence(self, client_order_id: str, position_id: int) -> None:
        """Count an explicit not-found, if nothing happened to the order since it was asked for; then either send the
        same id again (rule R6), or tell a person, or ask again later."""
        found = await self._decide(client_order_id, position_id, asked=None)
        if found is not None and found.to_ask is not None:
            asked = await self._gather(found.to_ask, found.now)
            found = await self._decide(client_order_id, position_id, asked=asked)
        again = found is not None and bool(found.claimed)
        log.info("order_not_found", client_order_id=client_order_id, counted=found is not None, sent_again=again)

    async def _gather(self, order: Order, at: datetime) -> Asked | str:
        """What the broker says of the order besides that it does not find it; one order at a time, because a list of
        executions may be long."""
        try:
            async with self._gathering:
                return await gather(self._broker, order, at=at)
        except BrokerUnavailable as error:
            return f"the broker did not answer: {error.reason}"

    async def _decide(
        self, client_order_id: str, position_id: int, *, asked: Asked | str | None
    ) -> AbsenceResult | None:
        """What a not-found comes to, committed; without `asked` it is counted, with it the evidence is whole."""

        async def work(tx: Transaction) -> AbsenceResult | None:
            claims.anew()
            book = (await lock_books(tx, position_ids=[position_id]))[position_id]
            checked_at = monotonic()
            held = await lock_controls(tx, account_id=self._broker.account_id)
            order = book.orders.get(client_order_id)
            if order is None:
                return None
            known = await load_known(tx, order=order)
            result = decide_not_found(
                book,
                order,
                asked=asked,
                known=known,
                controls=held.controls,
                now=held.now,
                watched=self._watch.silent(client_order_id, now=monotonic()),
                absent_s=partial(self._watch.absent_s, order, known.exited, now=monotonic()),
                sender=Sender(instance_id=self._instance_id, lease_s=self._lease_s, turns=claims),
                rules=self._rules,
            )
            if result is not None:
                await save(tx, result)
                claims.written(result, checked_at=checked_at)
            return result

        async with self._transactions, claiming(self._pool) as claims:
            return await retrying(self._database, work)
