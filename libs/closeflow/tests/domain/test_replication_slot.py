"""What a look at slot, connector and heartbeat means, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from closeflow.domain.outbox.replication_slot import (
    WATCHED,
    Connector,
    Limits,
    Observed,
    Part,
    Slot,
    Step,
    findings,
    judged,
    next_step,
)

SECOND = timedelta(seconds=1)
LIMITS = Limits(patience=10 * SECOND, lag_bytes=1000, wal_left_bytes=500, heartbeat_age=60 * SECOND)

STREAMING = Slot(active=True, wal_status="reserved", invalidation=None, lag_bytes=10, wal_kept_bytes_left=None)
INACTIVE = replace(STREAMING, active=False)
LOST = replace(INACTIVE, wal_status="lost", invalidation="wal_removed", wal_kept_bytes_left=-9)
IDLE = replace(INACTIVE, invalidation="idle_timeout")

RUNNING = Connector(Part("RUNNING"), (Part("RUNNING"),))
STOPPED = Connector(Part("STOPPED"), ())
PAUSED = Connector(Part("PAUSED"), (Part("PAUSED"),))
NO_TASK = Connector(Part("RUNNING"), ())
FAILED = Connector(Part("RUNNING"), (Part("FAILED", "org.X: outer\nCaused by: a.B: inner\n\tat c"),))
BROKEN = Connector(Part("FAILED", "org.X: the connector itself"), ())
SLOT_GONE = Connector(
    Part("RUNNING"), (Part("FAILED", "... but this is no longer available on the server. Reconfigure ..."),)
)
WELL = Observed(STREAMING, RUNNING)
AWAY = Observed(INACTIVE, None, unreachable="connection refused")


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        pytest.param(WELL, Step.NOTHING, id="it streams"),
        pytest.param(AWAY, Step.NOTHING, id="Connect is away"),
        pytest.param(replace(AWAY, slot=None), Step.NOTHING, id="Connect is away and the slot too"),
        pytest.param(Observed(None, None), Step.NOTHING, id="nobody has registered the connector"),
        pytest.param(Observed(STREAMING, FAILED), Step.RESTART_FAILED, id="a failed task"),
        pytest.param(Observed(INACTIVE, BROKEN), Step.RESTART_FAILED, id="a failed connector"),
        pytest.param(Observed(INACTIVE, NO_TASK), Step.NOTHING, id="the task is being started"),
        pytest.param(Observed(INACTIVE, RUNNING, slotless_for=9 * SECOND), Step.NOTHING, id="the task takes its slot"),
        pytest.param(
            Observed(INACTIVE, RUNNING, slotless_for=10 * SECOND), Step.RESTART_ALL, id="a task that cannot log in"
        ),
        pytest.param(Observed(None, RUNNING, slotless_for=9 * SECOND), Step.NOTHING, id="the first slot is being made"),
        pytest.param(Observed(None, RUNNING, slotless_for=10 * SECOND), Step.STOP, id="nobody makes the slot"),
        pytest.param(Observed(None, SLOT_GONE), Step.STOP, id="the task says that its slot is gone"),
        pytest.param(Observed(INACTIVE, SLOT_GONE), Step.STOP, id="the slot was dropped and made again"),
        pytest.param(Observed(LOST, RUNNING), Step.STOP, id="the slot's WAL was removed"),
        pytest.param(Observed(IDLE, FAILED), Step.STOP, id="the slot was invalidated"),
        pytest.param(Observed(LOST, STOPPED), Step.NOTHING, id="a person stopped it"),
        pytest.param(Observed(LOST, PAUSED), Step.NOTHING, id="a person paused it"),
        pytest.param(Observed(LOST, STOPPED, recovering=True), Step.START_AFRESH, id="recovering: it has stopped"),
        pytest.param(Observed(None, STOPPED, recovering=True), Step.START_AFRESH, id="recovering: there is no slot"),
        pytest.param(Observed(None, RUNNING, recovering=True), Step.NOTHING, id="recovering: it makes its slot"),
        pytest.param(Observed(INACTIVE, NO_TASK, recovering=True), Step.NOTHING, id="recovering: it is starting"),
        pytest.param(Observed(INACTIVE, FAILED, recovering=True), Step.RESTART_FAILED, id="recovering: it failed"),
        pytest.param(Observed(None, SLOT_GONE, recovering=True), Step.STOP, id="recovering: the crash was before it"),
        pytest.param(replace(WELL, recovering=True), Step.FINISH, id="recovering: it streams"),
        pytest.param(replace(AWAY, recovering=True), Step.NOTHING, id="recovering: Connect is away"),
    ],
)
def test_what_is_done(seen: Observed, step: Step) -> None:
    assert next_step(seen, LIMITS) is step


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        pytest.param(WELL, (), id="it streams"),
        pytest.param(AWAY, ("connector_unreachable",), id="Connect is away"),
        pytest.param(replace(AWAY, slot=None), ("connector_unreachable", "slot_missing"), id="and the slot too"),
        pytest.param(Observed(None, None), ("connector_missing", "slot_missing"), id="nothing is set up"),
        pytest.param(Observed(INACTIVE, STOPPED), ("connector_stopped",), id="stopped by a person"),
        pytest.param(Observed(INACTIVE, PAUSED), ("connector_stopped",), id="paused by a person"),
        pytest.param(Observed(INACTIVE, STOPPED, recovering=True), (), id="stopped by the recovery"),
        pytest.param(Observed(INACTIVE, FAILED, restarts=1), (), id="a failed task may heal with a restart"),
        pytest.param(Observed(INACTIVE, FAILED, restarts=2), ("connector_task_failed",), id="and it did not"),
        pytest.param(Observed(INACTIVE, NO_TASK, restarts=2), ("connector_task_failed",), id="nor does it stream yet"),
        pytest.param(replace(WELL, restarts=2), (), id="it streams after two restarts"),
        pytest.param(replace(WELL, restarts=3), ("connector_task_failed",), id="it streams, and fails again and again"),
        pytest.param(
            Observed(LOST, STOPPED), ("connector_stopped", "slot_lost_unattended"), id="lost while a person stopped it"
        ),
        pytest.param(
            Observed(LOST, PAUSED), ("connector_stopped", "slot_lost_unattended"), id="lost while a person paused it"
        ),
        pytest.param(
            replace(AWAY, slot=LOST), ("connector_unreachable", "slot_lost_unattended"), id="lost while Connect is away"
        ),
        pytest.param(
            Observed(IDLE, None), ("connector_missing", "slot_lost_unattended"), id="lost and nobody registered it"
        ),
        pytest.param(replace(AWAY, slot=LOST, recovering=True), ("connector_unreachable",), id="lost, and recovering"),
        pytest.param(Observed(LOST, FAILED), (), id="lost, and the recovery begins"),
        pytest.param(Observed(INACTIVE, RUNNING), ("slot_inactive",), id="it runs without its slot"),
        pytest.param(Observed(replace(STREAMING, lag_bytes=1001), RUNNING), ("slot_lag",), id="it lags"),
        pytest.param(
            Observed(replace(STREAMING, wal_kept_bytes_left=499), RUNNING), ("slot_wal_at_risk",), id="little WAL left"
        ),
        pytest.param(
            Observed(replace(STREAMING, wal_status="unreserved"), RUNNING), ("slot_wal_at_risk",), id="none left"
        ),
        pytest.param(Observed(LOST, STOPPED, recovering=True), (), id="a slot that is lost is no longer at risk"),
        pytest.param(
            replace(WELL, heartbeat_age=61 * SECOND, heartbeat_still_for=61 * SECOND),
            ("heartbeat_stale",),
            id="no heartbeat for too long",
        ),
        pytest.param(
            replace(WELL, heartbeat_age=3600 * SECOND, heartbeat_still_for=5 * SECOND), (), id="a clock jumped ahead"
        ),
        pytest.param(
            Observed(INACTIVE, STOPPED, recovering=True, heartbeat_age=61 * SECOND, heartbeat_still_for=61 * SECOND),
            (),
            id="no heartbeat is expected of a connector that is stopped",
        ),
    ],
)
def test_what_is_wrong(seen: Observed, kinds: tuple[str, ...]) -> None:
    assert tuple(found.kind for found in findings(seen, LIMITS)) == kinds
    assert set(kinds) <= set(WATCHED)


OF_CONNECT = {"connector_unreachable", "connector_missing", "connector_stopped"}
OF_SLOT = {"slot_missing", "slot_lag", "slot_wal_at_risk"}
OF_BOTH = {"slot_lost_unattended", "slot_inactive"}


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        pytest.param(WELL, set(WATCHED), id="it streams"),
        pytest.param(AWAY, OF_SLOT, id="Connect gave no answer"),
        pytest.param(Observed(INACTIVE, STOPPED), OF_CONNECT | OF_SLOT | OF_BOTH, id="it does not stream"),
        pytest.param(Observed(STREAMING, FAILED), OF_CONNECT | OF_SLOT | OF_BOTH, id="it failed, the slot is busy yet"),
    ],
)
def test_what_a_look_can_say_to_be_over(seen: Observed, kinds: set[str]) -> None:
    assert judged(seen) == kinds


def test_a_failure_is_told_with_its_innermost_cause() -> None:
    (told,) = findings(Observed(INACTIVE, FAILED, restarts=3), LIMITS)
    assert told.detail == "it does not stream after 3 restarts: a.B: inner"
