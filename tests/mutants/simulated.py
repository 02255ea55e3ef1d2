"""Faults that the simulation has to notice: the code with a few words changed, as somebody might change them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Final

from closeflow.domain.close import due_orders, due_requests, next_attempt, orphan_orders, outcome, plan_batch, timeouts
from closeflow.domain.orders import refusals, status
from closeflow.domain.outbox import publication_audit
from closeflow.domain.sending import absence, answered, claim, next_step
from fill_processor import apply_batch
from order_submitter import heartbeat
from tests.simulation import keeping, sends
from tests.simulation.themes import CLOSE_ONLY

Edit = tuple[ModuleType, str, str]
"""A module, what its source says once, and what it says instead."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`theme` is where it is to be looked for, from the seed `first` on: one that found it when it was last looked."""

    theme: str
    edits: tuple[Edit, ...]
    first: int = 1


@contextmanager
def planted(edits: tuple[Edit, ...]) -> Iterator[None]:
    """Meanwhile the functions of these modules run as if their sources said so, whoever imported them."""
    kept: dict[FunctionType, CodeType] = {}
    try:
        for module, before, after in edits:
            source = inspect.getsource(module)
            assert source.count(before) == 1, f"{module.__name__} says {source.count(before)} times: {before}"
            wrong = {
                one.co_qualname: one
                for one in _codes(
                    compile(source.replace(before, after), module.__file__ or "", "exec", dont_inherit=True)
                )
            }
            for function in _functions(module):
                kept.setdefault(function, function.__code__)
                function.__code__ = wrong[function.__code__.co_qualname]
        yield
    finally:
        for function, code in kept.items():
            function.__code__ = code


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for one in vars(module).values():
        for found in [one, *(vars(one).values() if isinstance(one, type) else ())]:
            if isinstance(found, FunctionType) and found.__code__.co_filename == module.__file__:
                yield found


NO_CANCEL: Final = (
    "    if request.cancel_requested_at is not None:\n        return _finish(request, RequestStatus.FAILED, USER"
)
MUTANTS: Final[Mapping[str, Mutant]] = {
    "an execution per message": Mutant(
        "cancels",
        (
            (
                apply_batch,
                "        applied = update.event_id in known.applied or",
                "        name = record.value.exec_id and f'{record.value.exec_id}@{record.partition}/{record.offset}'\n"
                "        update = replace(update, exec_id=name)\n"
                "        applied = False and",
            ),
        ),
    ),
    "a retry with an open gap": Mutant(
        "gaps", ((status, "    return is_done(order) and is_named(order)", "    return is_done(order)"),), first=38
    ),
    "a retry after the user's cancel": Mutant(
        "cancels",
        (
            (outcome, NO_CANCEL, NO_CANCEL.replace("request.cancel_requested_at is not None", "False")),
            (due_requests, "        return fail(book, request, USER_CANCEL, now=now)", "        pass"),
        ),
    ),
    "retries without end": Mutant("ends", ((outcome, "request.retry_count >= request.max_retries and", "False and"),)),
    "a retry under a halt": Mutant(
        "controls", ((next_attempt, "    if conditions.halted:", "    if False:"),), first=37
    ),
    "no working time-out": Mutant(
        "everything", ((timeouts, "timedelta(seconds=request.working_timeout_s)", "timedelta(days=9)"),)
    ),
    "only what was lost emitted again": Mutant(
        "publication",
        ((publication_audit, "if any(_not_before(one, start) for start in origins)", "if one.key[0] in origins"),),
    ),
    "reversals read from the stream only": Mutant(
        "reversals",
        (
            (
                apply_batch,
                "    if position_id is None or order is None:\n",
                "    if update.source != 'stream' and update.exec_type in ('trade_cancel', 'trade_correct'):\n"
                "        return None\n"
                "    if position_id is None or order is None:\n",
            ),
        ),
    ),
    "accounting not told of reversals": Mutant(
        "reversals", ((apply_batch, " for entry in booked]", " for entry in booked if not hasattr(entry, 'by')]"),)
    ),
    "a refused repeat taken as rejection": Mutant(
        "silence", ((refusals, "sends_that_count(order) != 1 or", "sends_that_count(order) == 0 or"),), first=299
    ),
    "nobody's lease waited for": Mutant(
        "silence",
        (
            (next_step, "for one in open_rows if one.lease_until > now]", "for one in open_rows if False]"),
            (next_step, "all(one.n in watched for one in open_rows)", "True"),
        ),
        first=372,
    ),
    "a new id when an order is not found": Mutant(
        "silence",
        (
            (
                next_step,
                "    return LookUp(absence_counts=all(",
                "    from closeflow.domain.model import RejectClass\n"
                "    return Withdraw('not_found', RejectClass.RETRYABLE) or LookUp(absence_counts=all(",
            ),
        ),
    ),
    "a claim written although another answered it": Mutant(
        "silence",
        (
            (sends, "    return send.answer is None", "    return True"),
            (claim, "    return min(lease_s / 3, FENCE_CAP_S)", "    return 1e9"),
        ),
    ),
    "a claim answered although it may be written": Mutant(
        "silence",
        (
            (heartbeat, "if not one.begun and (one.lease_over", "if (one.lease_over"),
            (keeping, "== (SendKind.SUBMIT, one.n) and not begun:", "== (SendKind.SUBMIT, one.n):"),
        ),
        first=22,
    ),
    "a hand-over that is said too late": Mutant(
        "crashes",
        ((keeping, "in database.handed_over for send in sends)", "in () for send in sends)"),),
        first=175,
    ),
    "an id sent again to a broker that forgets": Mutant(
        "silence", ((absence, "if rules.forgets_no_id or", "if True or"),), first=22
    ),
    "the close of a part sent again": Mutant(
        CLOSE_ONLY, ((absence, "held == {sign * order.quantity}", "True"),), first=40
    ),
    "an absence counted while a sender may still write": Mutant(
        "silence",
        (
            (
                absence,
                "watched=watched) != LookUp(absence_counts=True):",
                "watched=watched) == Clear():",
            ),
        ),
    ),
    "a time-out recorded as not sent": Mutant(
        "silence",
        (
            (
                answered,
                "        case Unanswered():\n            return Conclusion(SendAnswer.UNKNOWN",
                "        case Unanswered():\n            return Conclusion(SendAnswer.NOT_SENT",
            ),
        ),
    ),
    "a refused cancel taken for a cancel": Mutant(
        "cancels",
        ((answered, "SendAnswer.UNKNOWN if found is None else refused_cancel(found)", "SendAnswer.ACCEPTED"),),
        first=124,
    ),
    "an order withdrawn and its close left alone": Mutant(
        "controls", ((due_orders, "    return isinstance(step, Withdraw)", "    return False"),)
    ),
    "a batch decided on the books as they were": Mutant(
        "everything",
        ((plan_batch, "    book = result.books[position_id]\n", "    book = result.before[position_id]\n"),),
    ),
    "a cancel that is not asked for again": Mutant(
        "cancels", ((next_step, "return SendCancel(last.n + 1) if due <= now else Wait(", "return Wait("),)
    ),
    "an orphan canceled and nobody told": Mutant(
        "reversals",
        ((orphan_orders, "        result.incidents.append(about_order(", "        str(about_order("),),
        first=10,
    ),
    "a close given up and nobody told": Mutant(
        "silence",
        ((timeouts, "SUBMIT_UNKNOWN, now=now), incidents=(told,))", "SUBMIT_UNKNOWN, now=now))"),),
        first=36,
    ),
}
