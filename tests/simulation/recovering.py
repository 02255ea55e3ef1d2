"""What a look-up that found nothing comes to: mirrors the second half of `recover.Recovery`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from closeflow.domain.model import Book, Order, Send, SendKind
from closeflow.domain.sending.absence import BROKER_ASKED, Asked, Known, Point
from closeflow.domain.sending.broker_answers import Acknowledged
from closeflow.domain.sending.claim import next_number, not_found
from closeflow.domain.sending.next_step import LookUp, absence_incident
from closeflow.domain.sending.send_check import Clear
from tests.simulation.core import ABSENT_FOR
from tests.simulation.database import CommitUnknown, Disconnected, Tx
from tests.simulation.faults import Fault

if TYPE_CHECKING:
    from tests.simulation.submitter import Submitter


@dataclass(slots=True)
class Decision:
    sends: Sequence[tuple[Order, Send]] = ()
    to_ask: Order | None = None


def note_absence(of: Submitter, client_order_id: str, position_id: int, asked: Asked | None) -> Order | None:
    """As `Recovery._decide`. Returns the order of which only the broker's own evidence is missing."""
    checked_at = of.monotonic()
    decided = Decision()

    def work(tx: Tx) -> None:
        book = tx.lock_books(position_ids=[position_id])[position_id]
        decided.to_ask = _judge(of, tx, book, client_order_id, asked)
        decided.sends = list(tx.sends)

    try:
        of.around.database.transact(work)
    except CommitUnknown:
        of.mark_not_sent([*decided.sends], checked_at)
        return None
    except Disconnected:
        return None
    of.start_jobs([*decided.sends], checked_at)
    return decided.to_ask


def gather(of: Submitter, order: Order) -> Asked:
    """As `evidence.gather`."""
    exchange = of.around.exchange
    held = exchange.quantities[order.symbol]
    listed = (one for one in exchange.executions() if one.client_order_id == order.client_order_id)
    executions = tuple(one.exec_id or "" for one in listed)
    answer = exchange.look_up(order.client_order_id)
    looked_up = type(answer).__name__ if isinstance(answer, Acknowledged) else None
    at = of.around.database.now()
    return Asked(order=order, at=at, looked_up=looked_up, executions=executions, held=held)


def _judge(of: Submitter, tx: Tx, book: Book, client_order_id: str, asked: Asked | None) -> Order | None:
    """As `Recovery._judge`."""
    core, order = of.around.core, book.orders.get(client_order_id)
    if order is None:
        return None
    watched = of.watch.silent(client_order_id, now=of.monotonic())
    step = core.next_step(book, order, controls=tx.controls, now=tx.now, watched=watched)
    if step != LookUp(absence_counts=True):
        return None
    if asked is None:
        order = not_found(order, now=tx.now)
    told = absence_incident(order, now=tx.now, watched_s=_watched_s(of, order), within=ABSENT_FOR)
    missing = _missing(of, tx, book, order, asked) if told is not None else []
    to_ask = order if [one.name for one in missing] == [BROKER_ASKED] else None
    if core.may_repeat(of.around.exchange.deduplication) or (told is not None and not missing):
        check = core.recheck(book, order, controls=tx.controls, now=tx.now, may_repeat=True)
        if isinstance(check, Clear) and of.reserve(tx, SendKind.SUBMIT):
            order = of.claim(tx, order, SendKind.SUBMIT)
            if asked is not None:
                of.around.faults.saw(Fault.SENT_AGAIN)
    found_now = asked is not None and asked.looked_up is not None
    if told is not None and not (tx.sends or to_ask or found_now):
        tx.incidents.append(told)
    tx.save_books([(book, replace(book, orders={**book.orders, client_order_id: order}))])
    return to_ask


def _missing(of: Submitter, tx: Tx, book: Book, order: Order, asked: Asked | None) -> list[Point]:
    around = of.around
    enforced = around.exchange.refuses_to_exceed
    points = around.core.may_repeat_whole(
        book,
        order,
        "not yet" if asked is None else asked,
        Known(
            exited=around.database.exited,
            says_it_closes={one.sender for one in order.sends} if enforced else (),
            expected=book.position.quantity,
        ),
        refuses_to_exceed=enforced,
        now=tx.now,
        within=ABSENT_FOR,
    )
    return [one for one in points if not one.holds]


def _watched_s(of: Submitter, order: Order) -> float:
    """As `Recovery._watched_s`."""
    silent = {one.sender for one in order.sends if one.kind is SendKind.SUBMIT and one.answer is None}
    last = next_number(order, SendKind.SUBMIT), frozenset(silent & of.around.database.exited.keys())
    known = of.absent_since.get(order.client_order_id)
    if known is None or known[0] != last:
        known = of.absent_since[order.client_order_id] = (last, of.monotonic())
    return of.monotonic() - known[1]
