"""Watches the way from the outbox to Kafka: slot, connector and heartbeat. Restarts what failed, recovers a lost slot.

A recovery is an open incident `slot_lost`. Each of its steps follows from what is seen
(domain/outbox/replication_slot.py), so that a process which dies in the middle is followed by another one's next cycle.
What was written while there was no slot is then emitted again by the publication audit.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from closeflow.clock import monotonic
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident
from closeflow.domain.outbox.replication_slot import (
    Connector,
    Finding,
    Limits,
    Observed,
    Slot,
    Step,
    findings,
    judged,
    next_step,
)
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.incidents import close_incidents, open_incident, report_incidents
from closeflow.storage.replication_slot import Heartbeat, drop_lost_slot, last_heartbeat, record_action, slot_state
from closeflow.telemetry.metrics import counter, gauge
from reconciler.connect_client import Connect, ConnectUnreachable

log = structlog.get_logger(__name__)

SLOT_ACTIVE = gauge("closeflow_replication_slot_active")
SLOT_LAG = gauge("closeflow_replication_slot_lag_bytes")
WAL_LEFT = gauge("closeflow_replication_slot_wal_left_bytes")
CONNECTOR_UP = gauge("closeflow_connector_running")
HEARTBEAT_AGE = gauge("closeflow_heartbeat_age_seconds")
RESTARTS = counter("closeflow_connector_restarts_total")
RECOVERIES = counter("closeflow_slot_recoveries_total")

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


@dataclass(slots=True)
class WatchReplication:
    """The job; `once` is one cycle. One replica watches at a time; its own waits begin anew when another takes over."""

    database: Database
    connect: Connect
    slot: str
    limits: Limits
    _since: dict[IncidentKind, float] = field(default_factory=dict)
    _over: frozenset[IncidentKind] | None = None
    _told: frozenset[IncidentKind] = frozenset()
    _slotless_since: float | None = None
    _streams_since: float | None = None
    _heartbeat: tuple[datetime, float] | None = None
    _restarts: int = 0
    _quiet_until: float = 0.0
    _pause_s: float = FIRST_PAUSE_S

    async def once(self) -> int:
        """Look, tell, act; returns how many steps were taken (0 or 1)."""
        async with cycle_alone(self.database, "watch_replication") as mine:
            if not mine:
                _know_nothing()
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        seen = await self._look()
        await self._tell(seen)
        step = next_step(seen, self.limits)
        if step is Step.NOTHING:
            return 0
        try:
            return int(await self._act(step, seen))
        except ConnectUnreachable as error:
            log.warning("connect_step_not_done", step=step, reason=str(error))
            return 0

    async def _look(self) -> Observed:
        connector, unreachable = await self._ask_connect()
        async with transaction(self.database) as tx:
            slot = await slot_state(tx, name=self.slot)
            heartbeat = await last_heartbeat(tx)
            recovering = await open_incident(tx, kind=IncidentKind.SLOT_LOST, subject=self.slot) is not None
        now = monotonic()
        runs = connector is not None and connector.is_running
        if runs and (slot is None or not slot.active):
            self._slotless_since = self._slotless_since or now
        else:
            self._slotless_since = None
        seen = Observed(
            slot=slot,
            connector=connector,
            unreachable=unreachable,
            heartbeat_age=heartbeat.age if heartbeat else None,
            heartbeat_still_for=self._still_for(heartbeat, now),
            slotless_for=timedelta(seconds=now - (self._slotless_since or now)),
            restarts=self._restarts,
            recovering=recovering,
        )
        self._streams_since = (self._streams_since or now) if seen.streams else None
        if self._streams_since is not None and now - self._streams_since >= self.limits.steady.total_seconds():
            self._restarts, self._pause_s = 0, FIRST_PAUSE_S
            seen = replace(seen, restarts=0)
        _measure(seen)
        return seen

    async def _ask_connect(self) -> tuple[Connector | None, str | None]:
        try:
            return await self.connect.status(), None
        except ConnectUnreachable as error:
            return None, str(error)

    def _still_for(self, heartbeat: Heartbeat | None, now: float) -> timedelta:
        if heartbeat is None:
            self._heartbeat = None
            return timedelta(0)
        if self._heartbeat is None or self._heartbeat[0] != heartbeat.at:
            self._heartbeat = (heartbeat.at, now)
        return timedelta(seconds=now - self._heartbeat[1])

    async def _tell(self, seen: Observed) -> None:
        """Open an incident for what has lasted, close it when a look that can tell says that it is over; only a change
        is written."""
        now = monotonic()
        found = {one.kind: one for one in findings(seen, self.limits)}
        told, over = self._told, judged(seen) - found.keys()
        self._since = {kind: self._since.get(kind, now) for kind in (*found, *(self._since.keys() - over))}
        patience = self.limits.patience.total_seconds()
        lasting = frozenset(kind for kind in found if now - self._since[kind] >= patience) | (told - over)
        if lasting == told and over == self._over:
            return
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=[self._incident(found[kind]) for kind in sorted(lasting - told)])
            for kind in sorted(over):
                await close_incidents(tx, kind=kind, still=(), resolution="it is over")
        if lasting != told:
            log.warning("replication_judged", wrong=sorted(lasting), over=sorted(told - lasting))
        self._told, self._over = lasting, over

    async def _act(self, step: Step, seen: Observed) -> bool:
        """Take the step; false when it has to wait for its time."""
        match step:
            case Step.NOTHING:
                return False
            case Step.RESTART_FAILED | Step.RESTART_ALL:
                if not self._may_try_now():
                    return False
                self._restarts += 1
                RESTARTS.inc()
                log.warning("connector_restarted", step=step, restarts=self._restarts)
                await self.connect.restart(only_failed=step is Step.RESTART_FAILED)
            case Step.STOP:
                if not self._may_try_now():
                    return False
                await self._begin(seen)
                await self.connect.stop()
            case Step.START_AFRESH:
                return await self._start_afresh(seen.slot)
            case Step.FINISH:
                await self._finish(seen)
            case _:
                assert_never(step)
        return True

    def _may_try_now(self) -> bool:
        """Whether the pause after the last try is over; then the next pause is twice as long, and never quite equal."""
        now = monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + self._pause_s * random.uniform(0.75, 1.25)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return True

    async def _begin(self, seen: Observed) -> None:
        if seen.recovering:
            return
        log.error("slot_recovery_begun", slot=self.slot, seen=_described(seen))
        lost = Finding(IncidentKind.SLOT_LOST, f"events of a while are in no slot; recovering: {_described(seen)}")
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=[self._incident(lost)])

    async def _start_afresh(self, slot: Slot | None) -> bool:
        """A stopped task may still hold the slot for a moment: then the next cycle goes on."""
        await self.connect.forget_offsets()
        if slot is not None and slot.is_lost:
            if slot.active:
                return False
            async with transaction(self.database) as tx:
                await drop_lost_slot(tx, name=self.slot)
            log.warning("lost_slot_dropped", slot=self.slot)
        await self.connect.resume()
        self._slotless_since = None
        log.warning("connector_started_afresh", connector=self.connect.name)
        return True

    async def _finish(self, seen: Observed) -> None:
        async with transaction(self.database) as tx:
            before = await open_incident(tx, kind=IncidentKind.SLOT_LOST, subject=self.slot)
            await record_action(
                tx,
                action="recover_slot",
                subject=self.slot,
                reason="the slot was lost; the audit emits again what it had not published",
                before={"seen": (before or {}).get("text")},
                after={"slot": asdict(seen.slot) if seen.slot else None, "connector": self.connect.name},
            )
            await close_incidents(tx, kind=IncidentKind.SLOT_LOST, still=(), resolution="a new slot streams")
        RECOVERIES.inc()
        log.warning("slot_recovered", slot=self.slot)

    def _incident(self, found: Finding) -> Incident:
        subject = self.slot if found.kind.startswith("slot_") else self.connect.name
        return about(found.kind, found.detail, subject=subject)


def _know_nothing() -> None:
    """What this replica saw last is old: another one watches, or nobody does yet."""
    for one in (SLOT_ACTIVE, SLOT_LAG, WAL_LEFT, CONNECTOR_UP, HEARTBEAT_AGE):
        one.set(math.nan)


_know_nothing()


def _measure(seen: Observed) -> None:
    slot = seen.slot
    left = slot.wal_kept_bytes_left if slot else None
    SLOT_ACTIVE.set(slot is not None and slot.active)
    SLOT_LAG.set(-1 if slot is None else slot.lag_bytes)
    WAL_LEFT.set(-1 if left is None else left)
    CONNECTOR_UP.set(seen.connector is not None and seen.connector.is_running)
    HEARTBEAT_AGE.set(-1 if seen.heartbeat_age is None else seen.heartbeat_age.total_seconds())


def _described(seen: Observed) -> str:
    states = ", ".join(part.state for part in seen.connector.parts) if seen.connector else "unknown"
    return f"connector and tasks {states}; slot {asdict(seen.slot) if seen.slot else 'not there'}"
