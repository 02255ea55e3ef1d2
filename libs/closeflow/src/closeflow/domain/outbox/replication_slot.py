"""How the way from the outbox to Kafka is: what a person must know of slot, connector and heartbeat, and what is done.

Seen with Debezium 3.6: a slot that was dropped, or dropped and made again, fails the task at every start; with its
stored offsets removed, the connector makes a new slot and goes on from the present. What was written in between is then
in no slot, and the publication audit emits it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from closeflow.domain.incidents import IncidentKind

RESTARTS_FORGIVEN: Final = 2
_BY_A_PERSON: Final = ("STOPPED", "PAUSED")
_GONE_TEXTS: Final = (
    "no longer available on the server",
    "can no longer get changes from replication slot",
    "cannot read from logical replication slot",
    "This slot has been invalidated",
)
"""How a task's stack trace tells that what it wants to read is in no slot."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of pg_replication_slots. `wal_kept_bytes_left` (safe_wal_size) is None where no limit is set."""

    active: bool
    wal_status: str
    invalidation: str | None
    lag_bytes: int
    wal_kept_bytes_left: int | None

    @property
    def is_lost(self) -> bool:
        """Its WAL is gone: no connector can ever read from it again."""
        return self.wal_status == "lost" or self.invalidation is not None


@dataclass(frozen=True, slots=True)
class Part:
    """The connector itself or one of its tasks, as Connect's REST interface states it; a FAILED one has a trace."""

    state: str
    trace: str = ""

    @property
    def is_failed(self) -> bool:
        """A failed part stays so until it is restarted."""
        return self.state == "FAILED"

    @property
    def tells_lost_slot(self) -> bool:
        """Whether its trace names what no restart can mend: the slot, or its WAL, is gone."""
        return self.is_failed and any(text in self.trace for text in _GONE_TEXTS)


@dataclass(frozen=True, slots=True)
class Connector:
    """A connector as Kafka Connect states it, all in one answer."""

    connector: Part
    tasks: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The connector itself first."""
        return (self.connector, *self.tasks)

    @property
    def is_running(self) -> bool:
        """By its own word; without a task it does nothing. Whether it reads from a slot, `streams` says."""
        return bool(self.tasks) and all(part.state == "RUNNING" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Observed:
    """One look. `connector` is None when Connect does not know it; `unreachable` says why Connect gave no answer.

    The times are the observer's own monotonic waits: how long in a row a connector that says it runs has read from no
    slot, and how long the heartbeat has not changed. `restarts`: how often a failed or slotless task was restarted
    since the connector last streamed for a while (`Limits.steady`).
    """

    slot: Slot | None
    connector: Connector | None
    unreachable: str | None = None
    heartbeat_age: timedelta | None = None
    heartbeat_still_for: timedelta = timedelta(0)
    slotless_for: timedelta = timedelta(0)
    restarts: int = 0
    recovering: bool = False

    @property
    def streams(self) -> bool:
        """Whether events are on their way: it runs, and PostgreSQL sees it read from a slot that is not lost."""
        return (
            self.connector is not None
            and self.connector.is_running
            and self.slot is not None
            and self.slot.active
            and not self.slot.is_lost
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """`patience`: how long a state may last that every start and every rebalance passes through. A finding is told when
    it has lasted that long, and a connector that runs is taken to have no slot. `steady`: how long it has to stream
    until its restarts are forgotten, so that a task which fails again every few minutes is told."""

    patience: timedelta
    lag_bytes: int
    wal_left_bytes: int
    heartbeat_age: timedelta
    steady: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, as an incident: `kind` is one of `WATCHED`."""

    kind: IncidentKind
    detail: str


class Step(StrEnum):
    """What to do now. Each can be repeated, and after each the next look decides anew."""

    NOTHING = "nothing"
    RESTART_FAILED = "restart_failed"
    RESTART_ALL = "restart_all"
    """The task says RUNNING, yet it has no slot: it keeps failing to connect with what it read when it started."""
    STOP = "stop"
    """Begin the recovery: note it, stop the connector."""
    START_AFRESH = "start_afresh"
    """Stopped: forget the offsets, drop the lost slot, resume."""
    FINISH = "finish"


def next_step(seen: Observed, limits: Limits) -> Step:
    """What the one replica that watches does after a look; a connector that a person stopped is left alone."""
    connector = seen.connector
    if connector is None or seen.unreachable is not None:
        return Step.NOTHING
    if seen.recovering and seen.streams:
        return Step.FINISH
    if connector.connector.state == "STOPPED":
        return Step.START_AFRESH if seen.recovering else Step.NOTHING
    if connector.connector.state == "PAUSED":
        return Step.NOTHING
    if _slot_is_gone(seen, connector, limits):
        return Step.STOP
    if any(part.is_failed for part in connector.parts):
        return Step.RESTART_FAILED
    if connector.is_running and seen.slotless_for >= limits.patience:
        return Step.RESTART_ALL
    return Step.NOTHING


def _slot_is_gone(seen: Observed, connector: Connector, limits: Limits) -> bool:
    if seen.slot is not None and seen.slot.is_lost:
        return True
    if any(part.tells_lost_slot for part in connector.tasks):
        return True
    return seen.slot is None and connector.is_running and seen.slotless_for >= limits.patience


def findings(seen: Observed, limits: Limits) -> tuple[Finding, ...]:
    """What is wrong in this look, one per kind; it is worth telling once it has lasted for `limits.patience`. A lost
    slot is among them only while nobody may recover it: else it is told when its recovery begins."""
    return (*_of_connect(seen), *_of_slot(seen, limits), *_of_heartbeat(seen, limits))


def judged(seen: Observed) -> frozenset[IncidentKind]:
    """The kinds of which this look says that they are over when it does not find them."""
    if seen.streams:
        return frozenset(WATCHED)
    of_slot = {IncidentKind.SLOT_MISSING, IncidentKind.SLOT_LAG, IncidentKind.SLOT_WAL_AT_RISK}
    if seen.unreachable is not None:
        return frozenset(of_slot)
    return frozenset(WATCHED) - {IncidentKind.CONNECTOR_TASK_FAILED, IncidentKind.HEARTBEAT_STALE}


def _of_connect(seen: Observed) -> list[Finding]:
    if seen.unreachable is not None:
        return [Finding(IncidentKind.CONNECTOR_UNREACHABLE, f"Kafka Connect gives no answer: {seen.unreachable}")]
    if seen.connector is None:
        return [Finding(IncidentKind.CONNECTOR_MISSING, "Kafka Connect does not know the connector; register it")]
    state = seen.connector.connector.state
    if state in _BY_A_PERSON and not seen.recovering:
        return [Finding(IncidentKind.CONNECTOR_STOPPED, f"somebody has {state.lower()} it: events wait in the WAL")]
    if seen.streams and seen.restarts > RESTARTS_FORGIVEN:
        text = f"it streams, but was restarted {seen.restarts} times and may fail again"
        return [Finding(IncidentKind.CONNECTOR_TASK_FAILED, text)]
    if seen.restarts >= RESTARTS_FORGIVEN and not seen.streams:
        trace = next((part.trace for part in seen.connector.parts if part.is_failed), "")
        text = f"it does not stream after {seen.restarts} restarts: {_innermost(trace)}"
        return [Finding(IncidentKind.CONNECTOR_TASK_FAILED, text)]
    return []


def _of_slot(seen: Observed, limits: Limits) -> list[Finding]:
    slot = seen.slot
    if slot is None:
        return [Finding(IncidentKind.SLOT_MISSING, "the replication slot is not there: nothing keeps WAL for it")]
    found = []
    if slot.is_lost and not seen.recovering and _left_alone(seen):
        text = "the slot's WAL is gone; it is recovered once the connector may be restarted"
        found.append(Finding(IncidentKind.SLOT_LOST_UNATTENDED, text))
    if slot.lag_bytes > limits.lag_bytes:
        found.append(Finding(IncidentKind.SLOT_LAG, f"{slot.lag_bytes} bytes of WAL are not confirmed"))
    left = slot.wal_kept_bytes_left
    if slot.wal_status == "unreserved" or (left is not None and left < limits.wal_left_bytes and not slot.is_lost):
        text = f"{left} bytes of WAL more and the slot is lost (max_slot_wal_keep_size)"
        found.append(Finding(IncidentKind.SLOT_WAL_AT_RISK, text))
    if not slot.active and seen.connector is not None and seen.connector.is_running:
        found.append(Finding(IncidentKind.SLOT_INACTIVE, "the connector says that it runs, but reads from no slot"))
    return found


def _left_alone(seen: Observed) -> bool:
    """Whether nothing is done by itself: see `next_step`."""
    connector = seen.connector
    return connector is None or connector.connector.state in _BY_A_PERSON


def _of_heartbeat(seen: Observed, limits: Limits) -> list[Finding]:
    age = seen.heartbeat_age
    if not seen.streams or age is None or min(age, seen.heartbeat_still_for) < limits.heartbeat_age:
        return []
    return [Finding(IncidentKind.HEARTBEAT_STALE, f"Debezium's last heartbeat is {age.total_seconds():.0f} s old")]


def _innermost(trace: str) -> str:
    """The innermost cause of a Java stack trace, else its first line."""
    lines = trace.splitlines() or ["no trace"]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes[-1] if causes else lines[0])[:300]


WATCHED: Final = (
    IncidentKind.CONNECTOR_UNREACHABLE,
    IncidentKind.CONNECTOR_MISSING,
    IncidentKind.CONNECTOR_STOPPED,
    IncidentKind.CONNECTOR_TASK_FAILED,
    IncidentKind.SLOT_MISSING,
    IncidentKind.SLOT_LOST_UNATTENDED,
    IncidentKind.SLOT_LAG,
    IncidentKind.SLOT_WAL_AT_RISK,
    IncidentKind.SLOT_INACTIVE,
    IncidentKind.HEARTBEAT_STALE,
)
"""Every kind that `findings` may return."""
