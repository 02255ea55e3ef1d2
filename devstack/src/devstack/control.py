"""What a user, a test or the demo asks of the stack. Every call may be repeated; one at a time works on an instance."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from devstack import state
from devstack.errors import StackError
from devstack.fetch import Report, fetch
from devstack.guard import end_recorded_parts
from devstack.instances import (
    Instance,
    Stack,
    check_ports,
    ensure_instance,
    forget_instance,
    read_instance,
    stack_of,
)
from devstack.places import cache_directory, instance_directory, link_of, locked, make_directory
from devstack.preflight import check_disk, find_java, postgres_platform
from devstack.state import PART_NAMES, PartState, PartStatus, Phase

POLL_SECONDS: Final = 0.05
UP_WITHIN_SECONDS: Final = 300.0
DOWN_WITHIN_SECONDS: Final = 90.0


def silent(_line: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known about an instance. `state` is running (all parts are ready), starting, broken, stopped or absent.

    `explanation` says of each thing that is wrong what it is and how to mend it.
    `stack` is None if there is no instance.
    """

    instance: str
    state: str
    explanation: tuple[str, ...]
    supervisor_pid: int | None
    stack: Stack | None
    parts: Mapping[str, PartStatus]

    def as_json(self) -> dict[str, Any]:
        """Plain data: the stack's fields at the top, then the parts with their pids."""
        found: dict[str, Any] = {"instance": self.instance, "state": self.state, "explanation": list(self.explanation)}
        if self.stack is not None:
            found |= {
                key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.stack).items()
            }
        return found | {"supervisor_pid": self.supervisor_pid, "parts": {n: asdict(p) for n, p in self.parts.items()}}


def up(name: str = "dev", report: Report = silent, *, secure: bool | None = None) -> Stack:
    """Start the instance, or whatever of it does not run, and wait until all parts are ready.

    `secure` makes a new instance with TLS and logins on every link; an instance stays what it was made as.

    `report` gets progress lines. Raises StackError (EnvironmentLacking, if the machine lacks something) whose line
    says how to mend it. What this call has started is stopped again when it fails or is interrupted.
    """
    postgres_platform()
    with instance_locked(name, report):
        java = find_java()
        fetch(report)
        check_disk(cache_directory())
        instance, directory = ensure_instance(name, secure)
        check_disk(directory)
        make_directory(directory / "logs")
        was_up = state.supervisor_lives(directory)
        told = told_already(directory) if was_up else {}
        try:
            if was_up:
                wish(directory, PART_NAMES)
            else:
                launch_supervisor(instance, directory, java)
            wait_for(directory, dict.fromkeys(PART_NAMES, PartState.READY), told, report)
        except BaseException:
            if not was_up and state.supervisor_lives(directory):
                report("stopping what was started")
                end_supervisor(directory, silent)
            raise
        return stack_of(instance, directory)


def down(name: str = "dev", report: Report = silent) -> None:
    """Stop Connect, Kafka and PostgreSQL, in this order. Nothing to do is no error."""
    if read_instance(name) is None:
        return
    with instance_locked(name, report):
        end_supervisor(instance_directory(name), report)


def reset(name: str = "dev", report: Report = silent) -> None:
    """`down`, then wipe the instance's data, logs and ports. What was downloaded stays."""
    if not instance_directory(name).exists() and not link_of(name).is_symlink():
        return
    with instance_locked(name, report):
        end_supervisor(instance_directory(name), report)
        forget_instance(name)
        report(f"wiped instance {name}")


def find(name: str = "dev") -> Stack | None:
    """Where the instance can be reached if it is up; also when some part of it is down, see `status`."""
    instance, directory = read_instance(name), instance_directory(name)
    return stack_of(instance, directory) if instance and state.supervisor_lives(directory) else None


def stop_part(name: str, part: str, report: Report = silent) -> None:
    """Stop one part of a running instance in an orderly way and leave it down until start_part or up."""
    change_part(name, part, PartState.STOPPED, report)


def start_part(name: str, part: str, report: Report = silent) -> None:
    """Start one part of a running instance (also one that was killed) and wait until it is ready."""
    change_part(name, part, PartState.READY, report)


def change_part(name: str, part: str, aim: PartState, report: Report) -> None:
    """Bring one part of a running instance to `aim` and wait for it. Raises StackError where there is no such part, or
    it fails."""
    if part not in PART_NAMES:
        raise StackError(f"'{part}' is no part of the stack: it is one of {', '.join(PART_NAMES)}")
    with instance_locked(name, report):
        directory = instance_directory(name)
        if not state.supervisor_lives(directory):
            raise StackError(f"instance {name} is not running: make up INSTANCE={name}")
        told = told_already(directory)
        others = set(state.read_wanted(directory).parts) - {part}
        wish(directory, others | {part} if aim is PartState.READY else others)
        wait_for(directory, {part: aim}, told, report)


def kill_part(name: str, part: str) -> int:
    """kill -9 the part's process, for tests of a crash; its pid. It stays down until start_part or up."""
    found = status(name).parts.get(part)
    if found is None or found.pid is None:
        raise StackError(f"{part} of instance {name} is not running: make up INSTANCE={name}")
    os.kill(found.pid, signal.SIGKILL)
    wait_for(instance_directory(name), {part: PartState.FAILED}, {}, silent)
    return found.pid


def freeze_part(name: str, part: str) -> None:
    """Stop the part's processes where they are: it is there and answers nothing, until thaw_part."""
    for pid in _pids(name, part):
        os.kill(pid, signal.SIGSTOP)


def thaw_part(name: str, part: str) -> None:
    """Let a frozen part go on."""
    for pid in reversed(_pids(name, part)):
        os.kill(pid, signal.SIGCONT)


def _pids(name: str, part: str) -> list[int]:
    """Its process and the children of that: PostgreSQL's would go on answering without it."""
    found = status(name).parts.get(part)
    if found is None or found.pid is None:
        raise StackError(f"{part} of instance {name} is not running: make up INSTANCE={name}")
    with open(f"/proc/{found.pid}/task/{found.pid}/children") as children:
        return [found.pid, *map(int, children.read().split())]


def status(name: str = "dev") -> Status:
    """What is known about the instance now, without changing anything."""
    instance, directory = read_instance(name), instance_directory(name)
    if instance is None:
        return Status(name, "absent", (f"no instance {name} yet: make up INSTANCE={name}",), None, None, {})
    stack, found = stack_of(instance, directory), state.read_report(directory)
    mend = f"make up INSTANCE={name}"
    if not state.supervisor_lives(directory):
        if found is None or found.phase is Phase.STOPPED:
            return Status(name, "stopped", (f"instance {name} is stopped: {mend}",), None, stack, {})
        gone = f"the supervisor (pid {found.supervisor_pid}) and all parts are gone, by a kill -9 or a reboot: {mend}"
        return Status(name, "broken", (gone,), None, stack, {})
    if found is None or found.phase is Phase.STOPPED:
        return Status(name, "starting", (), None, stack, {})
    failed = [part for part in found.parts.values() if part.state is PartState.FAILED]
    down_parts = [part for part in found.parts.values() if part.state is PartState.STOPPED]
    explanation = [f"{part.name} {part.failure} at {part.since} (log: {part.log}): {mend}" for part in failed]
    explanation += [f"{part.name} was stopped at {part.since}: {mend}" for part in down_parts]
    ready = all(part.state is PartState.READY for part in found.parts.values())
    word = "broken" if explanation else "running" if ready else "starting"
    return Status(name, word, tuple(explanation), found.supervisor_pid, stack, found.parts)


@contextmanager
def instance_locked(name: str, report: Report) -> Iterator[None]:
    """Hold the instance for one command; others wait, and are told so through `report`."""
    lock = link_of(name).with_name(f"{name}.lock")
    make_directory(lock.parent)
    with locked(lock, lambda: report(f"another command works on instance {name}, waiting for it")):
        yield


def launch_supervisor(instance: Instance, directory: Path, java: str) -> None:
    """Start the process that starts and watches the parts, and outlives the caller. Raises StackError."""
    end_recorded_parts(directory)  # of a supervisor that was killed, where they did not go with it
    check_ports(instance)
    state.want(directory, PART_NAMES)
    supervisor_log = directory / "logs" / "supervisor.log"
    with supervisor_log.open("wb") as log:
        started = subprocess.run(
            [sys.executable, "-m", "devstack.supervisor", instance.name, java],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
            check=False,
        )
    if started.returncode != 0:
        raise StackError(f"the supervisor did not start: see {supervisor_log}")


def wish(directory: Path, parts: "set[str] | tuple[str, ...]") -> None:
    """Tell the living supervisor which parts should run."""
    state.want(directory, parts)
    found = state.read_report(directory)
    if found is not None and state.supervisor_lives(directory):
        os.kill(found.supervisor_pid, signal.SIGUSR1)


def told_already(directory: Path) -> dict[str, PartState]:
    """What a living supervisor's parts are now, which is no news to report."""
    found = state.read_report(directory)
    return {name: part.state for name, part in found.parts.items()} if found else {}


def wait_for(directory: Path, aims: Mapping[str, PartState], told: dict[str, PartState], report: Report) -> None:
    """Until each part is in the aimed state, as an answer to the newest wish; raises when it cannot get there."""
    generation = state.read_wanted(directory).generation
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    while state.supervisor_lives(directory) and time.monotonic() < deadline:
        found = state.read_report(directory)
        if found is not None and found.generation >= generation:
            tell(found, told, report)
            states = {name: found.parts[name].state for name in aims}
            if states == dict(aims):
                return
            for name in aims:
                if states[name] is PartState.FAILED:
                    raise StackError(explain(found.parts[name]))
        time.sleep(POLL_SECONDS)
    raise StackError(f"the supervisor ended or does not answer: see {directory}/logs/supervisor.log, then make up")


def tell(found: state.Report, told: dict[str, PartState], report: Report) -> None:
    """Report the parts whose state is not the one told before."""
    for part in found.parts.values():
        if told.get(part.name) is not part.state:
            told[part.name] = part.state
            after = f" after {part.seconds} s" if part.state is PartState.READY else ""
            report(f"{part.name:<9} {part.state}{after}")


def explain(part: PartStatus) -> str:
    """Why the part failed: its last log lines and what to do."""
    log = Path(part.log)
    lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
    return f"{part.name} {part.failure}: look into {log}, mend what it says, then make up" + "".join(
        f"\n  {x}" for x in lines
    )


def end_supervisor(directory: Path, report: Report) -> None:
    """Stop all parts and their supervisor; also what a killed one may have left behind."""
    found = state.read_report(directory)
    told = told_already(directory)
    asked = False
    deadline = time.monotonic() + DOWN_WITHIN_SECONDS
    while state.supervisor_lives(directory):
        found = state.read_report(directory)
        if found is not None and found.phase is Phase.RUNNING:
            if not asked:
                os.kill(found.supervisor_pid, signal.SIGTERM)
                asked = True
            tell(found, told, report)
        if time.monotonic() > deadline:
            raise StackError(f"the supervisor did not stop within {DOWN_WITHIN_SECONDS:.0f} s: see {directory}/logs")
        time.sleep(POLL_SECONDS)
    end_recorded_parts(directory)
    if asked and (found := state.read_report(directory)) is not None:
        tell(found, told, report)
    if found is not None:
        state.write_report(
            directory, state.Report(str(directory), Phase.STOPPED, found.supervisor_pid, found.generation)
        )
