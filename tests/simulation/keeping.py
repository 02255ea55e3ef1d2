"""Unanswered sends, whoever claimed them: the shell of `InstanceHeartbeat.keep_once`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeflow.domain.model import Order, Send, SendAnswer, SendKind
from closeflow.storage.order_sends import Answered, UnansweredSend
from order_submitter import heartbeat
from tests.simulation.database import CommitUnknown, Database, Disconnected, Tx, answered, claim_key
from tests.simulation.faults import Crashed, Fault
from tests.simulation.queries import UNSENT

if TYPE_CHECKING:
    from tests.simulation.submitter import Submitter


def keep(of: Submitter) -> bool:
    """Watch them, answer those of which nothing has left, look up those whose sender is gone."""
    database = of.around.database
    found = [
        _unanswered(database, order, one)
        for order in database.orders()
        if order.status in UNSENT
        for one in order.sends
        if one.kind is SendKind.SUBMIT and one.answered_at is None
    ]
    of.watch.saw(found, now=of.monotonic())
    seen, of.seen = of.seen, {(one.client_order_id, one.n) for one in found}
    asked = len(of.questions)
    orphans = [one for one in found if one.sender not in of.around.lives]
    for one in orphans:  # Every process of a run is in the same boot and namespaces, so that exits are seen.
        database.exited.setdefault(one.sender, database.now())
    never_left = [one for one in orphans if of.around.one_host and one.begun and not handed_over(database, one)]
    unsent = [*heartbeat.to_take_over(found, orphans), *never_left]
    if unsent:
        _take_over(of, unsent)
    for one in orphans:
        if one.begun and one not in never_left:
            of.ask(one.client_order_id, None)
    return seen != of.seen or len(of.questions) > asked


def _take_over(of: Submitter, unbegun: list[UnansweredSend]) -> None:
    of.may_crash()
    try:
        of.around.database.transact(lambda tx: tx.answers.extend(answer_unbegun(tx, unbegun)))
    except CommitUnknown:
        return
    except Disconnected:
        raise Crashed from None
    of.around.faults.saw(Fault.TAKEN_OVER)


def answer_unbegun(tx: Tx, unbegun: list[UnansweredSend]) -> list[Answered]:
    """As the statement of `closeflow.storage.order_sends`, which looks again at whether they have begun, unless it is
    proven otherwise that they never left."""
    found = []
    for one in unbegun:
        order = tx.database.order(one.client_order_id)
        for send in order.sends if order else ():
            begun = not one.begun and claim_key(one.client_order_id, send) in tx.database.begun
            if (send.kind, send.n) == (SendKind.SUBMIT, one.n) and not begun:
                found.append(answered(one.client_order_id, send, SendAnswer.NOT_SENT, 0))
    return found


def handed_over(database: Database, one: UnansweredSend) -> bool:
    """Whether the sender's file names the send."""
    order = database.order(one.client_order_id)
    sends = [send for send in (order.sends if order else ()) if (send.kind, send.n) == (SendKind.SUBMIT, one.n)]
    return any(claim_key(one.client_order_id, send) in database.handed_over for send in sends)


def _unanswered(database: Database, order: Order, send: Send) -> UnansweredSend:
    return UnansweredSend(
        client_order_id=order.client_order_id,
        n=send.n,
        sender=send.sender,
        host=None,
        pid=None,
        exited_at=None,
        begun=claim_key(order.client_order_id, send) in database.begun,
        lease_over=send.lease_until <= database.now(),
    )
