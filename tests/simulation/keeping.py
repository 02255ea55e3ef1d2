"""Unanswered sends, whoever claimed them: mirrors `keep.InstanceHeartbeat`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeflow.domain.model import Order, Send, SendAnswer, SendKind
from closeflow.storage.order_sends import UnansweredSend
from tests.simulation.database import Answer, CommitUnknown, Database, Disconnected, Tx, claim_key
from tests.simulation.faults import Crashed, Fault
from tests.simulation.queries import UNSENT

if TYPE_CHECKING:
    from tests.simulation.submitter import Submitter


def keep(of: Submitter) -> bool:
    """As `InstanceHeartbeat.keep_once`: watch them, answer those of which nothing has left, look up
    those whose sender is gone."""
    database, core = of.around.database, of.around.core
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
    for (
        one
    ) in orphans:  # As `InstanceHeartbeat._confirm_exits`: every process of a run is in the same boot and namespaces.
        database.exited.setdefault(one.sender, database.now())
    unbegun = [one for one in found if core.may_answer(one.begun) and (one.lease_over or one in orphans)]
    if unbegun:
        _take_over(of, unbegun)
    for one in orphans:
        if one.begun:
            of.ask(one.client_order_id, None)
    return seen != of.seen or len(of.questions) > asked


def _take_over(of: Submitter, unbegun: list[UnansweredSend]) -> None:
    """As `InstanceHeartbeat._take_over`, which looks again at whether they have begun."""
    of.may_crash()
    database = of.around.database

    def work(tx: Tx) -> None:
        for one in unbegun:
            order = database.order(one.client_order_id)
            sends = order.sends if order else ()
            for send in (send for send in sends if (send.kind, send.n) == (SendKind.SUBMIT, one.n)):
                if of.around.core.may_answer(claim_key(one.client_order_id, send) in database.begun):
                    tx.answers.append(_not_sent(one.client_order_id, send))

    try:
        database.transact(work)
    except CommitUnknown:
        return
    except Disconnected:
        raise Crashed from None
    of.around.faults.saw(Fault.TAKEN_OVER)


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


def _not_sent(client_order_id: str, send: Send) -> Answer:
    return Answer(
        client_order_id=client_order_id,
        kind=send.kind,
        n=send.n,
        sender=send.sender,
        started_at=send.started_at,
        answer=SendAnswer.NOT_SENT,
        again_in_s=0,
    )
