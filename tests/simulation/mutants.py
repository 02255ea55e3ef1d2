"""Wrong decisions that the simulation has to notice, each a real function with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, ParamSpec, TypeVar

from closeflow.domain.close.plan_order import plan
from closeflow.domain.close.timeouts import Conditions, Moved, PutOff, Waits, wake
from closeflow.domain.model import (
    ZERO,
    Book,
    CloseRequest,
    ExecType,
    Order,
    OrderStatus,
    RejectClass,
    SendKind,
    UpdateSource,
)
from closeflow.domain.operator import declare_lost
from closeflow.domain.orders import status as order_status
from closeflow.domain.outbox.events import EXECUTION_REVERSED
from closeflow.domain.outbox.publication_audit import Emission, EventKey, emit_again, lost
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending import next_step, send_check
from closeflow.domain.trading_controls import Controls
from fill_processor.apply_batch import BatchResult, Known, UpdateRecord, apply_batch
from tests.simulation.core import Core, FoldBatch
from tests.simulation.themes import CLOSE_ONLY

P = ParamSpec("P")
R = TypeVar("R")


def book_each_message(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> BatchResult:
    """An execution is whatever message comes: its id is not looked at, nor whether the message came before."""

    def renamed(record: UpdateRecord) -> UpdateRecord:
        if record.value.exec_id is None:
            return record
        name = f"{record.value.exec_id}@{record.partition}/{record.offset}"
        return replace(record, value=record.value.model_copy(update={"exec_id": name}))

    return apply_batch(replace(known, applied=frozenset()), [renamed(one) for one in records], policy=policy)


def believe_every_refusal(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> BatchResult:
    """Rule R3b forgotten: the refusal of a repeated send is taken as proof that the order does not exist."""

    def once(order: Order) -> Order:
        submits = [one for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
        return replace(order, sends=tuple(submits[-1:]))

    def sent_once(book: Book) -> Book:
        return replace(book, orders={name: once(order) for name, order in book.orders.items()})

    def restored(folded: Book, kept: Book) -> Book:
        orders = {name: replace(order, sends=kept.orders[name].sends) for name, order in folded.orders.items()}
        return replace(folded, orders=orders)

    books = {key: sent_once(book) for key, book in known.books.items()}
    folded = apply_batch(replace(known, books=books), records, policy=policy)
    folded.books = {key: restored(book, known.books[key]) for key, book in folded.books.items()}
    return folded


def new_id_on_silence(
    book: Book, order: Order, *, controls: Controls, now: datetime, watched: Set[int]
) -> next_step.Step:
    """An order that cannot be accounted for is given up, so that the close goes on under a new id."""
    step = next_step.next_step(book, order, controls=controls, now=now, watched=watched)
    if isinstance(step, next_step.LookUp) and order.status is OrderStatus.SUBMIT_UNKNOWN:
        return send_check.Withdraw("not_found", RejectClass.RETRYABLE)
    return step


def seeing(changed: Callable[[CloseRequest], CloseRequest], fold: FoldBatch = apply_batch) -> FoldBatch:
    """The fold on requests that are not as they are; what it writes is not touched by the difference."""

    def decided(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> BatchResult:
        books = {key: _with_requests(book, map(changed, book.requests.values())) for key, book in known.books.items()}
        folded = fold(replace(known, books=books), records, policy=policy)
        for key, book in folded.books.items():
            kept = known.books[key].requests
            folded.books[key] = book if book is not books[key] else known.books[key]
            restored = (_restored(one, kept[one.id]) for one in book.requests.values())
            if book is not books[key]:
                folded.books[key] = _with_requests(book, restored)
        return folded

    return decided


def _restored(request: CloseRequest, kept: CloseRequest) -> CloseRequest:
    return replace(request, max_retries=kept.max_retries, cancel_requested_at=kept.cancel_requested_at)


def _with_requests(book: Book, requests: Iterable[CloseRequest]) -> Book:
    return replace(book, requests={one.id: one for one in requests})


def never_canceled(request: CloseRequest) -> CloseRequest:
    return replace(request, cancel_requested_at=None)


def never_tired(request: CloseRequest) -> CloseRequest:
    return replace(request, max_retries=request.max_retries + 100)


def retry_when_halted(
    book: Book,
    request: CloseRequest,
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Conditions | None = None,
) -> Moved | PutOff | Waits:
    calm = None if conditions is None else replace(conditions, halted=False)
    return wake(book, request, now=now, resend_after=resend_after, unknown_after=unknown_after, conditions=calm)


def retry_when_canceled(
    book: Book,
    request: CloseRequest,
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Conditions | None = None,
) -> Moved | PutOff | Waits:
    kept, request = request, never_canceled(request)
    verdict = wake(
        book, request, now=now, resend_after=resend_after, unknown_after=unknown_after, conditions=conditions
    )
    if isinstance(verdict, Waits):
        return verdict
    after = _restored(verdict.book.requests[kept.id], kept)
    return replace(verdict, book=_with_requests(verdict.book, {**verdict.book.requests, kept.id: after}.values()))


def let_work(
    book: Book,
    request: CloseRequest,
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Conditions | None = None,
) -> Moved | PutOff | Waits:
    """An order that works for too long is left to itself."""
    request = replace(request, working_timeout_s=10**6)
    return wake(book, request, now=now, resend_after=resend_after, unknown_after=unknown_after, conditions=conditions)


def emit_only_the_lost(
    emissions: Sequence[Emission], missing: Collection[EventKey], *, budget: int
) -> tuple[EventKey, ...]:
    """What was published after the lost event is not said again behind it."""
    gone = lost(missing, emissions)
    return tuple(key for key in emit_again(emissions, missing, budget=budget) if key in gone)


def impatient(book: Book, order: Order, *, controls: Controls, now: datetime, watched: Set[int]) -> next_step.Step:
    """Neither the lease of a sender that has not answered is waited for, nor a lease by the own clock."""
    sends = tuple(replace(one, lease_until=min(one.lease_until, now)) for one in order.sends)
    order = replace(order, sends=sends)
    everyone = watched | {one.n for one in sends}
    return next_step.next_step(book, order, controls=controls, now=now, watched=everyone)


def read_reversals_of_the_stream_only(
    known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy
) -> BatchResult:
    """The activities are asked for fills, and for nothing that took a fill back."""
    kept = [
        one
        for one in records
        if one.value.source is UpdateSource.STREAM
        or one.value.exec_type not in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT)
    ]
    return apply_batch(known, kept, policy=policy)


def keep_reversals_from_accounting(
    known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy
) -> BatchResult:
    folded = apply_batch(known, records, policy=policy)
    folded.events = [one for one in folded.events if one.event_type != EXECUTION_REVERSED]
    return folded


def seeing_no_gap(decide: Callable[P, R]) -> Callable[P, R]:
    """Rule R4 forgotten: while this decides, a fill that is known and cannot be named is none."""

    def decided(*args: P.args, **kwargs: P.kwargs) -> R:
        real = order_status.unattributed
        order_status.unattributed = lambda order: ZERO
        try:
            return decide(*args, **kwargs)
        finally:
            order_status.unattributed = real

    return decided


def whatever_it_closes(
    book: Book,
    order: Order,
    asked: declare_lost.Asked | str,
    known: declare_lost.Known,
    *,
    refuses_to_exceed: bool,
    now: datetime,
    within: timedelta,
) -> tuple[declare_lost.Point, ...]:
    """An order that is not of the whole position goes out again too: the broker has room for both."""
    points = declare_lost.may_repeat(
        book, order, asked, known, refuses_to_exceed=refuses_to_exceed, now=now, within=within
    )
    return tuple(one for one in points if one.name != "whole position")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`theme` is where it is to be looked for, from the seed `first` on: one that found it when it was last looked."""

    core: Core
    theme: str
    first: int = 1


RETRY_OVER_A_GAP: Final = Core(
    plan=seeing_no_gap(plan),
    recheck=seeing_no_gap(send_check.recheck),
    apply_batch=seeing_no_gap(apply_batch),
    wake=seeing_no_gap(wake),
)
MUTANTS: Final[Mapping[str, Mutant]] = {
    "an execution per message": Mutant(Core(apply_batch=book_each_message), "cancels"),
    "a retry with an open gap": Mutant(RETRY_OVER_A_GAP, "gaps"),
    "a retry after the user's cancel": Mutant(
        Core(apply_batch=seeing(never_canceled), wake=retry_when_canceled), "cancels"
    ),
    "retries without end": Mutant(Core(apply_batch=seeing(never_tired)), "ends", first=66),
    "a retry under a halt": Mutant(Core(wake=retry_when_halted), "controls", first=56),
    "no working time-out": Mutant(Core(wake=let_work), "everything"),
    "only what was lost emitted again": Mutant(Core(emit_again=emit_only_the_lost), "publication"),
    "reversals read from the stream only": Mutant(Core(apply_batch=read_reversals_of_the_stream_only), "reversals"),
    "accounting not told of reversals": Mutant(Core(apply_batch=keep_reversals_from_accounting), "reversals"),
    "a refused repeat taken as rejection": Mutant(Core(apply_batch=believe_every_refusal), "silence", first=54),
    "nobody's lease waited for": Mutant(Core(next_step=impatient), "silence"),
    "a new id when an order is not found": Mutant(Core(next_step=new_id_on_silence), "silence"),
    "a claim written although another answered it": Mutant(
        Core(may_begin=lambda _: True, fence_s=lambda _: 1e9), "silence"
    ),
    "a claim answered although it may be written": Mutant(Core(may_answer=lambda _: True), "silence", first=22),
    "an id sent again to a broker that forgets": Mutant(Core(may_repeat=lambda _: True), "silence", first=22),
    "the close of a part sent again": Mutant(Core(may_repeat_whole=whatever_it_closes), CLOSE_ONLY, first=40),
}
