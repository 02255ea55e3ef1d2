"""Which silent sends this process has watched for a whole lease, and which senders are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from closeflow.storage.submitting import UnansweredSend
from order_submitter.presence import this_process
from order_submitter.recover import Watch

ME = this_process()


def unanswered(order: str = "cf-1", n: int = 1, **changes: Any) -> UnansweredSend:
    known: dict[str, Any] = {"sender": "s", "host": ME.host, "pid": os.getppid(), "exited_at": None}
    known |= {"begun": True, "lease_over": False}
    return UnansweredSend(client_order_id=order, n=n, **{**known, **changes})


def test_a_send_is_silent_after_a_whole_lease_of_watching() -> None:
    watch = Watch(lease_s=30)
    watch.saw([unanswered()], now=100)
    watch.saw([unanswered(), unanswered(n=2)], now=110)
    assert watch.silent("cf-1", now=129) == frozenset()
    assert watch.silent("cf-1", now=130) == {1}
    assert watch.silent("cf-1", now=140) == {1, 2}
    assert watch.silent("cf-2", now=999) == frozenset()


def test_a_send_that_was_answered_meanwhile_is_forgotten() -> None:
    watch = Watch(lease_s=30)
    watch.saw([unanswered()], now=100)
    watch.saw([], now=110)
    watch.saw([unanswered()], now=120)
    assert watch.silent("cf-1", now=149) == frozenset()
    assert watch.silent("cf-1", now=150) == {1}


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


GONE: dict[str, tuple[dict[str, Any], bool]] = {
    "itself": ({"sender": ME.instance_id, "pid": ME.pid}, False),
    "a living process of this host": ({}, False),
    "a process of this host that ended": ({"pid": ended_process()}, True),
    "an earlier life of this process id": ({"pid": ME.pid}, True),
    "a process of another host": ({"host": "elsewhere", "pid": ended_process()}, False),
    "a sender that said it exited": ({"host": "elsewhere", "exited_at": datetime(2026, 3, 2, tzinfo=UTC)}, True),
    "a sender that nobody registered": ({"host": None, "pid": None}, False),
}


@pytest.mark.parametrize(("send", "gone"), GONE.values(), ids=GONE)
def test_who_is_gone(send: dict[str, Any], gone: bool) -> None:
    assert ME.is_gone(unanswered(**send)) is gone


def test_two_lives_of_one_process_are_two_senders() -> None:
    assert this_process().instance_id != ME.instance_id
