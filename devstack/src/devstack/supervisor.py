"""The process that starts an instance's parts, watches them, and writes down what became of them.

`python -m devstack.supervisor INSTANCE JAVA` goes on in the background once it holds the lock. It has one thread,
because the kernel ties the parts to the thread that started them (processes.spawn). It restarts nothing by itself: a
part that died stays visible as failed until somebody asks for it again.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from devstack import guard, state
from devstack.fetch import fetched
from devstack.instances import read_instance
from devstack.parts import AFTER, PLANS, Site
from devstack.places import instance_directory, server_user, try_lock
from devstack.runs import Run
from devstack.state import PART_NAMES, PartState, Phase, Report, Wanted

POLL_SECONDS: Final = 0.1  # while something is under way
IDLE_SECONDS: Final = 1.0
DONE: Final = frozenset({PartState.STOPPED, PartState.FAILED})


class Supervisor:
    """Brings what runs to what is wanted, one small step per turn; no turn blocks for more than a readiness probe."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.runs = {name: Run(name, site) for name in PART_NAMES}
        self.wanted = Wanted(generation=0, parts=())
        self.ending = False
        self.written: Report | None = None

    def turn(self) -> bool:
        """Do what can be done now; whether there is anything left to supervise."""
        self.read_wishes()
        for run in self.runs.values():
            run.observe()
        for name in self.wanted.parts:
            self.start_when_possible(name)
        self.stop_next_unwanted()
        self.write(Phase.RUNNING)
        return not (self.ending and all(run.state in DONE for run in self.runs.values()))

    def read_wishes(self) -> None:
        """Take over what callers want now; a part that is wanted anew may fail again before it is given up."""
        wanted = Wanted(self.wanted.generation, ()) if self.ending else state.read_wanted(self.site.directory)
        if wanted.generation != self.wanted.generation:
            for name in wanted.parts:
                self.runs[name].forgive()
        self.wanted = wanted

    def start_when_possible(self, name: str) -> None:
        """Start a part once all that it needs are ready."""
        run = self.runs[name]
        if run.state not in (PartState.STOPPED, PartState.WAITING):
            return
        if not all(self.runs[other].state is PartState.READY for other in AFTER[name]):
            run.wait()
            return
        try:
            run.start(PLANS[name](self.site))
        except OSError as error:
            run.fail(f"could not be started: {error}")

    def stop_next_unwanted(self) -> None:
        """Connect before Kafka before PostgreSQL, each only when the one before is gone."""
        for name in reversed(PART_NAMES):
            if name not in self.wanted.parts and self.runs[name].state not in DONE:
                self.runs[name].stop()
                return

    def is_busy(self) -> bool:
        """Whether a part is on its way to a state that it will stay in."""
        resting = DONE | {PartState.READY}
        return any(run.state not in resting for run in self.runs.values())

    def write(self, phase: Phase) -> None:
        """Write the report if it says something new."""
        me = os.getpid()
        parts = {name: run.status() for name, run in self.runs.items()}
        report = Report(str(self.site.directory), phase, me, self.wanted.generation, parts)
        if report == self.written:
            return
        try:
            state.write_report(self.site.directory, report)
        except OSError as error:  # A full disk, say: the parts matter more, and the next turn tries again.
            print(f"could not write the status: {error}", file=sys.stderr)
            return
        self.written = report


def supervise(site: Site) -> None:
    """Keep the parts as they are wanted until a signal ends it; then stop them."""
    supervisor = Supervisor(site)
    wake, wake_write = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def end(_number: int, _frame: FrameType | None) -> None:
        supervisor.ending = True

    def look(_number: int, _frame: FrameType | None) -> None:
        """Being woken is enough: the next turn looks at everything."""

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, look)
    signal.signal(signal.SIGCHLD, look)
    while supervisor.turn():
        select.select([wake], [], [], POLL_SECONDS if supervisor.is_busy() else IDLE_SECONDS)
        while select.select([wake], [], [], 0)[0]:
            os.read(wake, 4096)
    supervisor.write(Phase.STOPPED)


def hold_lock(directory: Path) -> int | None:
    """The lock that says that a supervisor lives. Who asks whether one does holds it for a moment: try again."""
    deadline = time.monotonic() + 2
    while (held := try_lock(directory / "supervisor.lock")) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def main(name: str, java: str) -> int:
    """Supervise the instance; the exit code is 0 also where another supervisor was first, and 2 where it is not
    prepared."""
    directory = instance_directory(name)
    instance, binaries = read_instance(name), fetched()
    if instance is None or binaries is None:
        print(f"instance {name} is not prepared: it is started with `make up`", file=sys.stderr)
        return 2
    if hold_lock(directory) is None:
        return 0  # Another supervisor was first and serves the same wishes.
    if os.fork() != 0:
        os._exit(0)  # The caller, which waits for this one, now knows that the lock is held by the other.
    guard.watch(directory)
    supervise(Site(instance, directory, binaries, java, server_user()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
