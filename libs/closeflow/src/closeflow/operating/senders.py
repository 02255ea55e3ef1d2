"""Confirm that a sender has exited: what an operator has to know before an order is declared lost (rule R6)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from closeflow.domain.operator.requests import Already, Refused
from closeflow.domain.text import time_text
from closeflow.operating.acting import Acted, NotThere, Operator, OperatorAction, record
from closeflow.storage.core.engine import Database, Transaction, retrying
from closeflow.storage.senders import confirm_exit, list_senders

SEEN_WITHIN: Final = timedelta(seconds=10)
"""A sender says every second that it lives; one that was heard of within this time has not exited."""


async def confirm_sender_exit(database: Database, instance_id: str, operator: Operator) -> Already | Refused | Acted:
    """Raises NotThere. A sender that was heard of a moment ago is refused."""

    async def work(tx: Transaction) -> Already | Refused | Acted:
        found = await list_senders(tx, instance_id=instance_id)
        if not found:
            raise NotThere(f"there is no sender {instance_id}; `closectl senders list` shows those that were")
        sender = found[0]
        if sender["exited_at"] is not None:
            return Already(f"sender {instance_id} exited at {time_text(sender['exited_at'])}")
        if sender["silent_for"] < SEEN_WITHIN:
            where = f"pid {sender['pid']} on {sender['host']}"
            seen = time_text(sender["last_seen_at"])
            return Refused((f"sender {instance_id} ({where}) lives: it was heard of at {seen}; end it first",))
        await confirm_exit(tx, instance_id=instance_id)
        act = OperatorAction(operator, "confirm_exit", instance_id)
        before = {"last_seen_at": sender["last_seen_at"]}
        await record(tx, act, account=None, before=before, after={"exited": True})
        return Acted(f"sender {instance_id} has exited, confirmed; {sender['unanswered']} of its sends have no answer")

    return await retrying(database, work)
