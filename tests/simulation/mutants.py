"""Wrong decisions that the simulation has to notice, each a real function with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final

from closeflow.domain.close import due_orders, plan_batch, plan_order, timeouts
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
from closeflow.domain.orders import status as order_status
from closeflow.domain.outbox import publication_audit
from closeflow.domain.outbox.events import EXECUTION_REVERSED
from closeflow.domain.outbox.publication_audit import Emission, EventKey, lost
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending import absence, claim, next_step, send_check
from closeflow.storage.order_sends import Answered, UnansweredSend
from fill_processor import apply_batch as updates
from fill_processor.apply_batch import Known, UpdateRecord, UpdatesResult, apply_batch
from order_submitter import heartbeat
from tests.simulation import keeping, sends, submitter
from tests.simulation.broker import Exchange
from tests.simulation.database import Tx
from tests.simulation.themes import CLOSE_ONLY

Decide = Callable[..., Any]
Fold = Callable[..., UpdatesResult]
Verdict = timeouts.Moved | timeouts.PutOff | timeouts.Waits
WAKE: Final = timeouts.wake
EMIT_AGAIN: Final = publication_audit.emit_again
MAY_REPEAT: Final = absence.may_repeat
ABSENCE_RULES: Final = submitter.absence_rules
ANSWER_UNBEGUN: Final = keeping.answer_unbegun


def book_each_message(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> UpdatesResult:
    """An execution is whatever message comes: its id is not looked at, nor whether the message came before."""

    def renamed(record: UpdateRecord) -> UpdateRecord:
        if record.value.exec_id is None:
            return record
        name = f"{record.value.exec_id}@{record.partition}/{record.offset}"
        return replace(record, value=record.value.model_copy(update={"exec_id": name}))

    return apply_batch(replace(known, applied=frozenset()), [renamed(one) for one in records], policy=policy)


def believe_every_refusal(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> UpdatesResult:
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


def new_id_on_silence(book: Book, order: Order, **known: Any) -> next_step.Step:
    """An order that cannot be accounted for is given up, so that the close goes on under a new id."""
    step = next_step.next_step(book, order, **known)
    if isinstance(step, next_step.LookUp) and order.status is OrderStatus.SUBMIT_UNKNOWN:
        return send_check.Withdraw("not_found", RejectClass.RETRYABLE)
    return step


def seeing(changed: Callable[[CloseRequest], CloseRequest], fold: Fold = apply_batch) -> Fold:
    """The fold on requests that are not as they are; what it writes is not touched by the difference."""

    def decided(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> UpdatesResult:
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


def retry_when_halted(book: Book, request: CloseRequest, **known: Any) -> Verdict:
    conditions = known.pop("conditions", None)
    calm = None if conditions is None else replace(conditions, halted=False)
    return WAKE(book, request, conditions=calm, **known)


def retry_when_canceled(book: Book, request: CloseRequest, **known: Any) -> Verdict:
    verdict = WAKE(book, never_canceled(request), **known)
    if isinstance(verdict, timeouts.Waits):
        return verdict
    after = _restored(verdict.book.requests[request.id], request)
    return replace(verdict, book=_with_requests(verdict.book, {**verdict.book.requests, request.id: after}.values()))


def let_work(book: Book, request: CloseRequest, **known: Any) -> Verdict:
    """An order that works for too long is left to itself."""
    return WAKE(book, replace(request, working_timeout_s=10**6), **known)


def emit_only_the_lost(
    emissions: Sequence[Emission], missing: Collection[EventKey], *, budget: int
) -> tuple[EventKey, ...]:
    """What was published after the lost event is not said again behind it."""
    gone = lost(missing, emissions)
    return tuple(key for key in EMIT_AGAIN(emissions, missing, budget=budget) if key in gone)


def impatient(book: Book, order: Order, *, watched: Collection[int], **known: Any) -> next_step.Step:
    """Neither the lease of a sender that has not answered is waited for, nor a lease by the own clock."""
    sends = tuple(replace(one, lease_until=min(one.lease_until, known["now"])) for one in order.sends)
    everyone = {*watched, *(one.n for one in sends)}
    return next_step.next_step(book, replace(order, sends=sends), watched=everyone, **known)


def read_reversals_of_the_stream_only(
    known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy
) -> UpdatesResult:
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
) -> UpdatesResult:
    folded = apply_batch(known, records, policy=policy)
    folded.events = [one for one in folded.events if one.event_type != EXECUTION_REVERSED]
    return folded


def seeing_no_gap(decide: Decide) -> Decide:
    """Rule R4 forgotten: while this decides, a fill that is known and cannot be named is none."""

    def decided(*args: Any, **kwargs: Any) -> Any:
        with replaced((order_status, "unattributed", lambda order: ZERO)):
            return decide(*args, **kwargs)

    return decided


def whatever_it_closes(*args: Any, **known: Any) -> tuple[absence.Point, ...]:
    """An order that is not of the whole position goes out again too: the broker has room for both."""
    return tuple(one for one in MAY_REPEAT(*args, **known) if one.name != "whole position")


def forgets_no_id(exchange: Exchange) -> absence.AbsenceRules:
    return replace(ABSENCE_RULES(exchange), forgets_no_id=True)


def begun_or_not(unanswered: Iterable[UnansweredSend], orphans: Collection[UnansweredSend]) -> list[UnansweredSend]:
    return [one for one in unanswered if one.lease_over or one in orphans]


def answer_begun(tx: Tx, unbegun: list[UnansweredSend]) -> list[Answered]:
    with replaced((tx.database, "begun", set())):
        return ANSWER_UNBEGUN(tx, unbegun)


Place = tuple[Any, str, object]
"""A module, the name in it that the code looks up, and what takes its place."""
STEPS: Final = ((due_orders, "next_step"), (absence, "next_step"))
CHECKS: Final = ((plan_batch, "recheck"), (absence, "recheck"), (next_step, "recheck"))


@contextmanager
def replaced(*places: Place) -> Iterator[None]:
    kept = [(of, name, getattr(of, name)) for of, name, _ in places]
    for of, name, wrong in places:
        setattr(of, name, wrong)
    try:
        yield
    finally:
        for of, name, right in kept:
            setattr(of, name, right)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`theme` is where it is to be looked for, from the seed `first` on: one that found it when it was last looked."""

    places: tuple[Place, ...]
    theme: str
    first: int = 1


def everywhere(places: Iterable[tuple[ModuleType, str]], wrong: Decide) -> tuple[Place, ...]:
    return tuple((of, name, wrong) for of, name in places)


def folding(wrong: Fold) -> Place:
    return (updates, "apply_batch", wrong)


def waking(wrong: Decide) -> Place:
    return (timeouts, "wake", wrong)


RETRY_OVER_A_GAP: Final = (
    (plan_batch, "plan", seeing_no_gap(plan_order.plan)),
    *everywhere(CHECKS, seeing_no_gap(send_check.recheck)),
    folding(seeing_no_gap(apply_batch)),
    waking(seeing_no_gap(timeouts.wake)),
)
MUTANTS: Final[Mapping[str, Mutant]] = {
    "an execution per message": Mutant((folding(book_each_message),), "cancels"),
    "a retry with an open gap": Mutant(RETRY_OVER_A_GAP, "gaps"),
    "a retry after the user's cancel": Mutant(
        (folding(seeing(never_canceled)), waking(retry_when_canceled)), "cancels"
    ),
    "retries without end": Mutant((folding(seeing(never_tired)),), "ends", first=66),
    "a retry under a halt": Mutant((waking(retry_when_halted),), "controls", first=56),
    "no working time-out": Mutant((waking(let_work),), "everything"),
    "only what was lost emitted again": Mutant(((publication_audit, "emit_again", emit_only_the_lost),), "publication"),
    "reversals read from the stream only": Mutant((folding(read_reversals_of_the_stream_only),), "reversals"),
    "accounting not told of reversals": Mutant((folding(keep_reversals_from_accounting),), "reversals"),
    "a refused repeat taken as rejection": Mutant((folding(believe_every_refusal),), "silence", first=54),
    "nobody's lease waited for": Mutant(everywhere(STEPS, impatient), "silence"),
    "a new id when an order is not found": Mutant(everywhere(STEPS, new_id_on_silence), "silence"),
    "a claim written although another answered it": Mutant(
        ((sends, "may_begin", lambda _: True), (claim, "fence_s", lambda _: 1e9)), "silence"
    ),
    "a claim answered although it may be written": Mutant(
        ((heartbeat, "to_take_over", begun_or_not), (keeping, "answer_unbegun", answer_begun)), "silence", first=22
    ),
    "an id sent again to a broker that forgets": Mutant(
        ((submitter, "absence_rules", forgets_no_id),), "silence", first=22
    ),
    "the close of a part sent again": Mutant(((absence, "may_repeat", whatever_it_closes),), CLOSE_ONLY, first=40),
}
