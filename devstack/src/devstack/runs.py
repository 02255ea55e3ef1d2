"""One part's process through its life: preparing, starting, ready, stopping, and how it ended."""

import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from devstack.parts import Command, Plan, Site, Step
from devstack.processes import born, spawn
from devstack.state import PartState, PartStatus

READY_WITHIN_SECONDS: Final = 120.0
RETRY_WITHIN_SECONDS: Final = 15.0
NEXT_SIGNAL_AFTER_SECONDS: Final = 10.0


class Run:
    """The present or last run of one part."""

    def __init__(self, name: str, site: Site) -> None:
        self.name = name
        self.site = site
        self.state = PartState.STOPPED
        self.since = datetime.now(UTC)
        self.failure: str | None = None
        self.seconds: float | None = None
        self.plan: Plan | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.birth: str | None = None
        self.steps: Iterator[Step] = iter(())
        self.started = 0.0
        self.signals: Iterator[signal.Signals] = iter(())
        self.next_signal = 0.0

    def move(self, state: PartState) -> None:
        """Note the state, and since when if it is another one."""
        if state is not self.state:
            self.state = state
            self.since = datetime.now(UTC)

    def forgive(self) -> None:
        """A failed part may be started again."""
        if self.state is PartState.FAILED:
            self.failure = None
            self.move(PartState.STOPPED)

    def wait(self) -> None:
        """It is to be started once what it needs is ready."""
        self.move(PartState.WAITING)

    def start(self, plan: Plan) -> None:
        """Begin the plan's first step; the log of the run before is kept as `.previous.log`."""
        self.plan = plan
        self.started = time.monotonic()
        self.seconds = None
        self.steps = iter((*plan.steps, plan.serve))
        log = self.site.log(self.name)
        if log.exists():
            log.replace(log.with_name(f"{self.name}.previous.log"))
        log.touch()
        self.move(PartState.PREPARING if plan.steps else PartState.STARTING)
        self.next_step(plan)

    def next_step(self, plan: Plan) -> None:
        """Run steps until one has to be waited for. A step that cannot be done fails the part, not the supervisor."""
        try:
            for step in self.steps:
                if isinstance(step, Command):
                    self.launch(step, plan)
                    return
                step()
        except OSError as error:
            self.fail(f"could not be started: {error}")

    def launch(self, command: Command, plan: Plan) -> None:
        """Start the process of one step."""
        if command is plan.serve:
            self.move(PartState.STARTING)
        self.process = spawn(
            command.argv,
            log=self.site.log(self.name),
            directory=self.site.directory,
            stdin=command.stdin,
            environment=command.environment,
            user=command.user,
            signal_on_death=plan.signal_on_death,
        )
        self.birth = born(self.process.pid)

    def observe(self) -> None:
        """Notice what has happened since the last look."""
        plan, process = self.plan, self.process
        if plan is None or process is None:
            return
        status = process.poll()
        if status is not None:
            self.process = None
            self.ended(plan, status)
        elif self.state is PartState.STARTING and plan.is_ready(process.pid):
            self.seconds = round(time.monotonic() - self.started, 1)
            self.move(PartState.READY)
        elif self.state in (PartState.STARTING, PartState.PREPARING) and self.is_late():
            self.failure = f"was not ready after {READY_WITHIN_SECONDS:.0f} s"
            self.stop()
        elif self.state is PartState.STOPPING and time.monotonic() > self.next_signal:
            self.signal_next()

    def is_late(self) -> bool:
        """Whether it is not ready after READY_WITHIN_SECONDS."""
        return time.monotonic() - self.started > READY_WITHIN_SECONDS

    def ended(self, plan: Plan, status: int) -> None:
        """What the end of its process means: the next step, another try, stopped as asked, or failed."""
        if self.state is PartState.STOPPING:
            self.move(PartState.FAILED if self.failure else PartState.STOPPED)
        elif self.state is PartState.PREPARING and status == 0:
            self.next_step(plan)
        elif self.state is PartState.STARTING and self.may_retry(plan):
            self.steps = iter((plan.serve,))
            self.next_step(plan)
        else:
            self.fail(how_it_ended(status))

    def may_retry(self, plan: Plan) -> bool:
        """Whether its log has the words after which a start is worth repeating, and it is early enough."""
        if plan.retry_on is None or time.monotonic() - self.started > RETRY_WITHIN_SECONDS:
            return False
        return self.site.log_holds(self.name, plan.retry_on)

    def fail(self, failure: str) -> None:
        """It has ended by itself or was never ready; `failure` is what a person reads."""
        self.failure = failure
        self.move(PartState.FAILED)

    def stop(self) -> None:
        """Ask it to end by the first of its signals; the stronger ones follow if it stays."""
        if self.state is PartState.STOPPING:
            return
        if self.plan is None or self.process is None:
            self.move(PartState.STOPPED)
            return
        self.move(PartState.STOPPING)
        self.signals = iter(self.plan.stop_signals)
        self.signal_next()

    def signal_next(self) -> None:
        """Send the next stronger signal; the last one is SIGKILL."""
        number = next(self.signals, signal.SIGKILL)
        self.next_signal = time.monotonic() + NEXT_SIGNAL_AFTER_SECONDS
        if self.process is not None:
            self.process.send_signal(number)

    def status(self) -> PartStatus:
        """As it is now, for `status.json`."""
        process = self.process
        return PartStatus(
            name=self.name,
            state=self.state,
            log=str(self.site.log(self.name)),
            since=self.since.isoformat(timespec="seconds"),
            pid=process.pid if process else None,
            birth=self.birth if process else None,
            seconds=self.seconds,
            failure=self.failure,
        )


def how_it_ended(status: int) -> str:
    """`status` is negative for a signal, as in subprocess."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended by itself with exit code {status}"
