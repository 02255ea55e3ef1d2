"""What a batch of `submit-order` records makes of the books: each attempt planned, its first send claimed at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from closeflow.domain.batch import APPLIED, IGNORED, BatchResult
from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.outcome import conclude_all
from closeflow.domain.close.plan_order import (
    Asked,
    Deny,
    Disagrees,
    Market,
    Plan,
    PlanRules,
    Submit,
    apply_plan,
    plan,
    plan_incident,
)
from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, SendKind
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending.claim import Sender
from closeflow.domain.sending.send_check import Check, Clear, recheck
from closeflow.domain.trading_controls import Controls


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was read in the transaction that writes, besides the market, which was looked at before."""

    books: Mapping[int, Book]
    controls: Controls
    now: datetime
    market: Market


@dataclass(slots=True, kw_only=True)
class PlansResult(BatchResult):
    """What the batch came to."""

    plans: list[tuple[Asked, Plan]] = field(default_factory=list)
    invisible: set[UUID] = field(default_factory=set)
    """Event ids of records whose request is in no book: its commit may not be visible yet."""
    unchecked: list[tuple[str, Check]] = field(default_factory=list)
    """Client order ids of plans that did not pass the check before the wire, and why."""


def plan_batch(
    known: Known,
    records: Iterable[tuple[UUID, Asked]],
    *,
    sender: Sender,
    rules: PlanRules,
    policy: RetryPolicy,
) -> PlansResult:
    """Plan every record (event id, what it asks for) in order, then conclude once for each position of which an attempt
    was deferred or denied."""
    result = PlansResult(before=known.books, now=known.now, policy=policy, controls=known.controls)
    positions = {request_id: key for key, book in known.books.items() for request_id in book.requests}
    to_conclude: dict[int, None] = {}
    for event_id, asked in records:
        position_id = positions.get(asked.close_request_id)
        if position_id is None:
            result.invisible.add(event_id)
            continue
        decided = _plan_one(result, position_id, asked, known.market, sender, rules)
        result.outcomes[event_id] = IGNORED if isinstance(decided, Defer | Disagrees) else APPLIED
        if isinstance(decided, Defer | Deny):
            to_conclude[position_id] = None
    conclude_all(result, to_conclude)
    return result


def _plan_one(
    result: PlansResult, position_id: int, asked: Asked, market: Market, sender: Sender, rules: PlanRules
) -> Plan:
    now, controls = result.now, result.controls
    assert controls is not None, "they are known"
    resumes_in_s = sender.turns.plans_resume_in_s()
    if resumes_in_s is not None:
        market = replace(market, sends_resume_at=now + timedelta(seconds=resumes_in_s))
    book = result.books[position_id]
    decided = plan(book, asked, controls=controls, market=market, now=now, rules=rules)
    book = apply_plan(book, asked.close_request_id, decided, now=now)
    result.put(book)
    result.plans.append((asked, decided))
    if isinstance(decided, Submit):
        # The planner's work is checked by code that shares nothing with it; what does not pass is left to the poll.
        check = recheck(book, decided.order, controls=controls, now=now)
        if isinstance(check, Clear):
            sender.claim(result, decided.order, SendKind.SUBMIT)
        else:
            result.unchecked.append((decided.order.client_order_id, check))
    incident = plan_incident(book.requests[asked.close_request_id], decided)
    result.incidents += [incident] if incident is not None else []
    return decided
