"""When an order is looked at again that could not go out now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from closeflow.domain.controls import Controls
from closeflow.domain.due import is_due
from closeflow.domain.model import SendKind
from closeflow.domain.settle import RetryPolicy
from order_submitter.attend import Attendant, Round

from .test_sender_pool import NOW, ORDER, Outcome, ScriptedBroker, a_pool


def test_an_order_that_a_long_pause_holds_back_is_not_due_at_once() -> None:
    """A moment further ahead than any pause counts as a wrong clock's, and would be written anew all the time."""
    pool = a_pool(ScriptedBroker(), Outcome())
    pool.budget.refused(900.0)
    absent = cast(Any, None)
    attendant = Attendant(
        database=absent,
        account_id="main",
        pool=pool,
        recovery=absent,
        watch=absent,
        policy=RetryPolicy(),
        instance_id="me",
        lease_s=30,
    )
    decided = Round(before={}, books={}, now=NOW, controls=cast(Controls, None), checked_at=0.0)
    waiting = attendant._claim(decided, ORDER, SendKind.SUBMIT, [])
    assert waiting.next_send_at is not None
    assert not is_due(waiting.next_send_at, NOW)
    assert is_due(waiting.next_send_at, NOW + timedelta(minutes=10))
