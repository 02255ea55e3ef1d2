"""Plan what `submit-order` asks for: look at the market, then load, decide and save a batch in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from closeflow.clock import monotonic, sleep, utc_now
from closeflow.contracts import SUBMIT_ORDER, SubmitOrder, peek
from closeflow.domain.batch import PARKED, BatchResult
from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.plan_batch import Known, PlansResult, plan_batch
from closeflow.domain.close.plan_order import AlreadyPlanned, Asked, Deny, Disagrees, Market, PlanRules, Submit
from closeflow.domain.frozen import replace
from closeflow.domain.ids import client_order_id
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Incident, OrderType, Side
from closeflow.domain.monitoring import log_tail_lost
from closeflow.domain.position.freeze import freeze_request
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending.claim import Sender
from closeflow.kafka import DeadLetter, Record
from closeflow.kafka.lost_tail import LostTail
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import CommitUnknown, Database, StatementError, Transaction, database_now, retrying
from closeflow.storage.incidents import report_incidents
from closeflow.storage.parked_records import park_records
from closeflow.storage.trading_controls import lock_controls
from closeflow.telemetry import trace_fields
from closeflow.telemetry.metrics import STAGE_SECONDS, counter
from closeflow.unit_of_work import (
    MoveRefused,
    apart_where_one_breaks,
    first_line,
    parked_record,
    save,
    traceparents,
    write_in_spans,
)
from order_submitter.market import MarketView
from order_submitter.plan_spans import PlanSpans
from order_submitter.sending.claims import claiming
from order_submitter.sending.pool import SenderPool

CONSUMER: Final = "order-submitter"
PUBLISHED: Final = STAGE_SECONDS.labels("publish")
PLANNED: Final = STAGE_SECONDS.labels("plan")
PLANS: Final = counter("closeflow_plans_total")
VISIBLE_STEP_S: Final = 0.05
ROOM_WITHIN_S: Final = 0.1
"""What is planned when its send can be claimed needs one transaction; planned before, it needs two."""
NOT_VISIBLE: Final = "request_not_visible"
SubmitRecord = Record[SubmitOrder]

log = structlog.get_logger(__name__)


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
        mine = [record for record in records if record.value.account_id == self.account_id]
        if len(mine) < len(records):
            log.warning("other_accounts_skipped", count=len(records) - len(mine), account_id=self.account_id)
        give_up_at = monotonic() + self.visible_within_s  # For all parts together: the batch has a deadline.
        while mine:
            count = await self.pool.room(len(mine), within_s=ROOM_WITHIN_S)
            await self._plan_visible(mine[:count], give_up_at)
            mine = mine[count:]

    async def _plan_visible(self, records: Sequence[SubmitRecord], give_up_at: float) -> None:
        waiting = list(records)
        while waiting:
            parts = await apart_where_one_breaks(waiting, self._plan, alone=self._park_alone)
            waiting = [record for part in parts for record in part]
            if waiting and monotonic() >= give_up_at:
                waiting = [record for record in waiting if not await self._park(record, NOT_VISIBLE)]
            await sleep(VISIBLE_STEP_S if waiting else 0)

    async def _plan(self, records: Sequence[SubmitRecord]) -> list[SubmitRecord]:
        """Returns the records that have to be planned again."""
        spans = PlanSpans(records)
        market = await self._look_at_market(records)
        try:
            return await self._commit(records, market, spans, looked_at=monotonic())
        except CommitUnknown:
            return list(records)  # What was committed is AlreadyPlanned the next time.

    async def _park_alone(self, record: SubmitRecord, error: StatementError | MoveRefused) -> list[SubmitRecord]:
        await self._park(record, first_line(error))
        return []

    async def _look_at_market(self, records: Sequence[SubmitRecord]) -> Market:
        if self.pool.plans_resume_in_s() is not None:
            return Market(clock=None, quotes={})  # What is deferred for the breaker needs none of it.
        asked = [record.value for record in records]
        quoted = {one.symbol: one.asset_type for one in asked if _needs_quote(one)}
        return await self.market.look(quoted=quoted, traded=frozenset(one.asset_type for one in asked))

    async def _commit(
        self, records: Sequence[SubmitRecord], market: Market, spans: PlanSpans, *, looked_at: float
    ) -> list[SubmitRecord]:
        async with claiming(self.pool) as claims:
            claims.spans = spans.headers
            sender = Sender(instance_id=self.instance_id, lease_s=self.lease_s, turns=claims)
            asked = [(one.value.event_id, _asked(one.value)) for one in records]

            async def work(tx: Transaction) -> PlansResult:
                claims.anew()
                books = await lock_books(tx, request_ids={one.value.close_request_id for one in records})
                checked_at = monotonic()
                held = await lock_controls(tx, account_id=self.account_id)
                seen = replace(market, waited_s=monotonic() - looked_at)
                known = Known(books=books, controls=held.controls, now=held.now, market=seen)
                result = plan_batch(known, asked, sender=sender, rules=self.rules, policy=self.policy)
                write_in_spans(result, spans.headers)
                await save(tx, result, consumer=CONSUMER)
                claims.written(result, checked_at=checked_at)
                return result

            result = await retrying(self.database, work)
        spans.end(result)
        _report(result)
        _measure(records, result, at=utc_now())
        return [record for record in records if record.value.event_id in result.invisible]

    async def report_unreadable(self, letters: Sequence[DeadLetter]) -> None:
        """Tell a person of records on their way to the dead letters. Nothing is frozen: what nobody can read plans
        nothing, and the request's event comes again."""
        log.warning("records_unreadable", count=len(letters))
        await retrying(self.database, lambda tx: report_incidents(tx, incidents=[_unreadable(one) for one in letters]))

    async def report_lost_tail(self, group: str, lost: Sequence[LostTail]) -> None:
        """Tell a person of what Kafka lost. Nothing is frozen: what has no order yet is asked for again by itself."""
        incident = log_tail_lost(group, SUBMIT_ORDER, map(str, lost))
        await retrying(self.database, lambda tx: report_incidents(tx, incidents=[incident]))

    async def _park(self, record: SubmitRecord, reason: str) -> bool:
        """Keep the record whole, tell a person, freeze the request if there is one; so the partition goes on.

        False when a request that could not be seen is there after all: nothing was written, it can be planned.
        """
        message = record.value

        async def work(tx: Transaction) -> bool:
            books = await lock_books(tx, request_ids=[message.close_request_id])
            if books and reason == NOT_VISIBLE:
                return False
            result = BatchResult(before=books, now=await database_now(tx))
            for book in books.values():
                result.put(freeze_request(book, message.close_request_id, IncidentKind.SUBMIT_ORDER_PARKED))
            result.incidents.append(
                Incident(
                    kind=IncidentKind.SUBMIT_ORDER_PARKED,
                    severity="critical",
                    detail=reason,
                    close_request_id=message.close_request_id,
                )
            )
            result.outcomes[message.event_id] = PARKED
            await save(tx, result, consumer=CONSUMER)
            # Of the order that it asks for: by it the reconciler finds the request once that can be seen.
            of = client_order_id(message.close_request_id, message.attempt)
            await park_records(tx, records=[parked_record(record, reason, client_order_id=of)], now=result.now)
            return True

        parked = await retrying(self.database, work)
        if parked:
            log.error("record_parked", close_request_id=str(message.close_request_id), reason=reason)
        return parked


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


def _measure(records: Sequence[SubmitRecord], result: PlansResult, *, at: datetime) -> None:
    """How long the event of a first attempt took to Kafka, and from there to its order; once, because what is emitted
    again was waiting for something else."""
    planned = {asked.close_request_id for asked, decided in result.plans if isinstance(decided, Submit)}
    for record in records:
        told = record.value
        if told.close_request_id in planned and told.attempt == 1 and told.emission == 1:
            PUBLISHED.observe(max(0.0, (record.timestamp - told.requested_at).total_seconds()))
            PLANNED.observe(max(0.0, (at - record.timestamp).total_seconds()))


def _report(result: PlansResult) -> None:
    for name, check in result.unchecked:
        log.warning("plan_failed_recheck", client_order_id=name, check=repr(check))
    traces = traceparents(result)
    for asked, decided in result.plans:
        PLANS.labels(type(decided).__name__).inc()
        bound = log.bind(
            close_request_id=str(asked.close_request_id),
            attempt=asked.attempt,
            **trace_fields(traces.get(asked.close_request_id)),
        )
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
