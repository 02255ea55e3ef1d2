"""What the simulated services decide with: the real functions, which a test may replace by wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from closeflow.broker.protocol import IdDeduplication
from closeflow.domain.close import plan_order as planning
from closeflow.domain.close import timeouts
from closeflow.domain.model import Book, CloseRequest, Order, Send
from closeflow.domain.operator import declare_lost
from closeflow.domain.outbox import publication_audit
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending import claim, next_step, send_check
from closeflow.domain.trading_controls import Controls
from fill_processor import apply_batch
from order_submitter.sending.breaker import BreakerRules

ACCOUNT: Final = "DU1"
BROKER: Final = "broker"
POLICY: Final = RetryPolicy()
RULES: Final = planning.PlanRules()
BREAKER: Final = BreakerRules(failures=5, refusals=10, probe_s=5.0)

LEASE_S: Final = 30.0
HTTP_DEADLINE_S: Final = 5.0
VISIBILITY_LAG_S: Final = 5.0
VISIBLE_WITHIN_S: Final = 5.0
RESEND_AFTER: Final = timedelta(seconds=30)
UNKNOWN_AFTER: Final = timedelta(seconds=900)
QUIET_AFTER: Final = timedelta(seconds=10)
PUBLISH_WITHIN: Final = timedelta(seconds=30)
ABSENT_FOR: Final = declare_lost.window(VISIBILITY_LAG_S)


class Plan(Protocol):
    def __call__(
        self,
        book: Book,
        asked: planning.Asked,
        *,
        controls: Controls,
        market: planning.Market,
        now: datetime,
        rules: planning.PlanRules,
    ) -> planning.Plan: ...


class Recheck(Protocol):
    def __call__(
        self, book: Book, order: Order, *, controls: Controls, now: datetime, may_repeat: bool = False
    ) -> send_check.Check: ...


class NextStep(Protocol):
    def __call__(
        self, book: Book, order: Order, *, controls: Controls, now: datetime, watched: Set[int]
    ) -> next_step.Step: ...


class FoldBatch(Protocol):
    def __call__(
        self, known: apply_batch.Known, records: Sequence[apply_batch.UpdateRecord], *, policy: RetryPolicy
    ) -> apply_batch.BatchResult: ...


class Wake(Protocol):
    def __call__(
        self,
        book: Book,
        request: CloseRequest,
        *,
        now: datetime,
        resend_after: timedelta,
        unknown_after: timedelta,
        conditions: timeouts.Conditions | None = None,
    ) -> timeouts.Moved | timeouts.PutOff | timeouts.Waits: ...


class MayRepeat(Protocol):
    def __call__(
        self,
        book: Book,
        order: Order,
        asked: declare_lost.Asked | str,
        known: declare_lost.Known,
        *,
        refuses_to_exceed: bool,
        now: datetime,
        within: timedelta,
    ) -> tuple[declare_lost.Point, ...]: ...


class EmitAgain(Protocol):
    def __call__(
        self,
        emissions: Sequence[publication_audit.Emission],
        missing: Collection[publication_audit.EventKey],
        *,
        budget: int,
    ) -> tuple[publication_audit.EventKey, ...]: ...


def may_repeat(deduplication: IdDeduplication) -> bool:
    """As `Recovery._forgets_no_id`: the same id goes out again only where the broker refuses it for ever."""
    return deduplication is IdDeduplication.FOREVER


def may_begin(send: Send) -> bool:
    """As `submitting.begin_sends`: a claim that somebody answered is not written."""
    return send.answer is None


def may_answer(begun: bool) -> bool:
    """As `submitting.answer_unbegun`: what may have been written is its sender's to answer."""
    return not begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    plan: Plan = planning.plan
    recheck: Recheck = send_check.recheck
    next_step: NextStep = next_step.next_step
    apply_batch: FoldBatch = apply_batch.apply_batch
    wake: Wake = timeouts.wake
    emit_again: EmitAgain = publication_audit.emit_again
    may_repeat: Callable[[IdDeduplication], bool] = may_repeat
    may_repeat_whole: MayRepeat = declare_lost.may_repeat
    fence_s: Callable[[float], float] = claim.fence_s
    may_begin: Callable[[Send], bool] = may_begin
    may_answer: Callable[[bool], bool] = may_answer
