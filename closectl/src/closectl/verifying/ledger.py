"""Check the books that accounting makes of `execution-events` against the ledger of executions (invariant 16).

A trade enters the books once. A bust takes back what stands of it; a correction does that too and enters in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Final

from closectl.verifying.reading import KAFKA, PUBLISH_WITHIN, Published
from closectl.verifying.report import Looked, looked
from closeflow.domain.model import ExecKind, Side, Topic
from closeflow.domain.outbox.events import EXECUTION_CHARGED, EXECUTION_REVERSED
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.compared_state import BookedExecution, State

Key = tuple[str, str, str]
Wrong = Iterator[tuple[str, str]]
EXACT: Final = 200
"""Digits that no sum of cash needs."""


def check_ledger(state: State, published: Sequence[Published]) -> list[Looked]:
    """`published` was read after `state`, so what is newer than it may be there too."""
    events = list({one.event_key[0]: one for one in published if one.topic is Topic.EXECUTION_EVENTS}.values())
    with localcontext() as context:
        context.prec = EXACT
        return [
            looked(16, KAFKA, "execution events", len(events), _entries(state, events)),
            looked(16, KAFKA, "positions' cash", len({one.key for one in events}), _cash(state, events)),
        ]


def _key(event: Published) -> Key:
    """The row of the ledger that the event enters or takes back."""
    name = "reverses_exec_id" if event.value.get("event_type") == EXECUTION_REVERSED else "exec_id"
    return (str(event.value.get("broker")), str(event.value.get("account_id")), str(event.value.get(name)))


def _entries(state: State, events: Sequence[Published]) -> Wrong:
    entered: defaultdict[Key, list[Published]] = defaultdict(list)
    taken_back: defaultdict[Key, list[Published]] = defaultdict(list)
    for one in events:
        if one.value.get("event_type") == EXECUTION_CHARGED:
            continue  # It is in the books already; this is what it costs.
        (taken_back if one.value.get("event_type") == EXECUTION_REVERSED else entered)[_key(one)].append(one)
    known = {(one.broker, one.account_id, one.exec_id): one for one in state.executions}
    since = _since(state)
    for key, execution in known.items():
        ins, outs = entered[key], taken_back[key]
        subject = f"execution {execution.exec_id}"
        for found, what in ((ins, "entered"), (outs, "taken back")):
            if len(found) > 1:
                yield subject, f"is {what} by {len(found)} different events"
        for one in (*ins, *outs):
            if _content(one) != _booked(execution):
                yield subject, f"was booked as {_told(execution)}, its event says {_content(one)}"
        if not _judged(execution, since, state.at):
            continue
        if execution.kind is ExecKind.TRADE and not ins:
            yield subject, f"of {execution.client_order_id} is not in execution-events"
        elif bool(ins) - bool(outs) != execution.stands:
            stands = "stands" if execution.stands else "does not stand"
            yield subject, f"{stands}; its events enter it {len(ins)} and take it back {len(outs)} times"
    for key in (entered.keys() | taken_back.keys()) - known.keys():
        for one in (*entered[key], *taken_back[key]):
            if one.time < state.at - PUBLISH_WITHIN:
                yield f"execution {key[2]}", f"event {one.event_key[0]} is about it, but it is not booked"


def _cash(state: State, events: Sequence[Published]) -> Wrong:
    """Σ cash_amount of the events, each event once, against what the standing executions make. Only of positions where
    nothing is older than the events that are kept, or too new."""
    since = _since(state)
    skipped = {one.position_id for one in state.executions if not _judged(one, since, state.at)}
    skipped |= {int(one.key) for one in events if one.time >= state.at - PUBLISH_WITHIN and one.key.isdecimal()}
    booked: defaultdict[int, Decimal] = defaultdict(Decimal)
    for execution in state.executions:
        if execution.stands and execution.quantity is not None and execution.price is not None:
            value = execution.quantity * execution.price * execution.multiplier
            booked[execution.position_id] += value if execution.side is Side.SELL else -value
    told: defaultdict[int, Decimal] = defaultdict(Decimal)
    for one in events:
        cash = _decimal(one.value.get("cash_amount"))
        if one.key.isdecimal() and cash is not None:
            told[int(one.key)] += cash
    for position_id in sorted((booked.keys() | told.keys()) - skipped):
        if told[position_id] != booked[position_id]:
            yield (
                f"position {position_id}",
                f"the cash of its events is {decimal_text(told[position_id])}; its standing executions make "
                f"{decimal_text(booked[position_id])}",
            )


def _since(state: State) -> datetime:
    """An event outlives its outbox row by far, so the oldest row bounds what must be there."""
    return min((row.occurred_at for row in state.outbox), default=state.at)


def _judged(one: BookedExecution, since: datetime, at: datetime) -> bool:
    return since <= one.since and one.until < at - PUBLISH_WITHIN


def _content(one: Published) -> tuple[object, ...]:
    quantity, price = _decimal(one.value.get("quantity")), _decimal(one.value.get("price"))
    return (one.value.get("position_id"), one.value.get("side"), quantity, price)


def _booked(one: BookedExecution) -> tuple[object, ...]:
    return (one.position_id, one.side, one.quantity, one.price)


def _decimal(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except ArithmeticError:
        return None


def _told(one: BookedExecution) -> str:
    if one.quantity is None or one.price is None:
        return f"a {one.kind} of position {one.position_id}"
    return f"{one.side} {decimal_text(one.quantity)} @ {decimal_text(one.price)} of position {one.position_id}"
