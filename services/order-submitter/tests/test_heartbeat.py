"""Which silent sends this process has watched for a whole lease, and which senders are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from closeflow.storage.order_sends import UnansweredSend
from order_submitter.heartbeat import this_process
from order_submitter.look_up import Watch

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


def began(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split(" ")[19])


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


EXITED: dict[str, tuple[dict[str, Any], bool]] = {
    "itself": ({"sender": ME.instance_id, "pid": ME.pid, "process_started": ME.process_started}, False),
    "a living process": ({"pid": os.getppid(), "process_started": began(os.getppid())}, False),
    "a process that ended": ({"pid": ended_process()}, True),
    "a process that ended, its id given to another": ({"pid": os.getppid(), "process_started": 1}, True),
    "an earlier life of this process id": ({"pid": ME.pid, "process_started": 1}, True),
    "a process that ended, in another container or boot": ({"pid": ended_process(), "runs_in": "elsewhere"}, False),
    "a process that ended, which did not say where it ran": ({"pid": ended_process(), "runs_in": None}, False),
    "a process that ended, which did not say when it began": ({"pid": ended_process(), "process_started": None}, False),
    "a sender that nobody registered": ({"host": None, "pid": None, "runs_in": None, "process_started": None}, False),
    "one that is known to have exited": (
        {"pid": ended_process(), "exited_at": datetime(2026, 3, 2, tzinfo=UTC)},
        False,
    ),
}


@pytest.mark.parametrize(("send", "exited"), EXITED.values(), ids=EXITED)
def test_whose_exit_is_confirmed(send: dict[str, Any], exited: bool) -> None:
    """A host of the same name proves nothing: only the same boot and namespaces do."""
    known = {"host": "any", "runs_in": ME.runs_in, "process_started": 77} | send
    assert ME.has_exited(unanswered(**known)) is exited


def test_who_cannot_tell_where_it_runs_confirms_nothing() -> None:
    lost = replace(ME, runs_in=None)
    assert not lost.has_exited(unanswered(pid=ended_process(), runs_in=None, process_started=77))


def test_this_process_knows_where_it_runs_and_when_it_began() -> None:
    assert ME.runs_in is not None
    assert str(os.stat("/proc/self/ns/pid").st_ino) in ME.runs_in
    assert ME.process_started == began(os.getpid())


def test_two_lives_of_one_process_are_two_senders() -> None:
    assert this_process().instance_id != ME.instance_id
