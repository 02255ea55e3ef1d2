"""No process outlives its supervisor, and none is taken for another one that had its pid before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from devstack import guard, state
from devstack.places import is_locked, locked
from devstack.processes import born, end, is_alive, spawn
from devstack.state import PartState, PartStatus, Phase, Report, Wanted

PARENT = """
import pathlib, signal, sys, time
from devstack.processes import spawn
here = pathlib.Path(sys.argv[1])
print(spawn(["sleep", "600"], log=here / "log", directory=here).pid, flush=True)
time.sleep(600)
"""
GUARDED = """
import pathlib, sys, time
from devstack import guard
print(guard.start(pathlib.Path(sys.argv[1])).pid, flush=True)
time.sleep(600)
"""


def eventually(is_so: Callable[[], bool], within_seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + within_seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_so()


def start_parent(program: str, directory: Path) -> tuple["subprocess.Popen[str]", int]:
    """A process running `program`, and the pid that it prints."""
    parent = subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def report_naming(directory: Path, process: "subprocess.Popen[bytes]", birth: str | None) -> None:
    part = PartStatus("kafka", PartState.READY, log="", since="", pid=process.pid, birth=birth)
    state.write_report(directory, Report(str(directory), Phase.RUNNING, 1, 1, {"kafka": part}))


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent, child = start_parent(PARENT, tmp_path)
    birth = born(child)
    assert is_alive(child, birth)
    with parent:
        parent.kill()
    assert eventually(lambda: not is_alive(child, birth)) or sys.platform != "linux"
    end(child, birth or "", signal.SIGKILL, within_seconds=5)


def test_the_guard_ends_the_recorded_parts_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    part = spawn(["sleep", "600"], log=tmp_path / "log", directory=tmp_path)
    report_naming(tmp_path, part, born(part.pid))
    supervisor, _ = start_parent(GUARDED, tmp_path)
    with supervisor:
        supervisor.kill()
    assert part.wait(timeout=10) == -signal.SIGKILL


def test_a_process_that_only_has_the_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    other = spawn(["sleep", "600"], log=tmp_path / "log", directory=tmp_path)
    report_naming(tmp_path, other, "another boot/1")
    guard.end_recorded_parts(tmp_path)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_report_that_came_with_a_copied_directory_is_not_believed(tmp_path: Path) -> None:
    written = Report("/somewhere/else", Phase.RUNNING, os.getpid(), 3, {})
    state.write_report(tmp_path, written)
    assert state.read_report(tmp_path) is None


def test_each_wish_is_a_new_generation(tmp_path: Path) -> None:
    assert state.read_wanted(tmp_path) == Wanted(0, ())
    state.want(tmp_path, {"connect", "postgres"})
    assert (
        state.want(tmp_path, {"kafka", "postgres"}) == state.read_wanted(tmp_path) == Wanted(2, ("postgres", "kafka"))
    )


def test_a_lock_is_seen_while_it_is_held_and_not_after(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_locked(lock)
    with locked(lock):
        assert is_locked(lock)
    assert not is_locked(lock)
