"""The kinds of incidents, which a person is told of, and how one of each is made."""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID

from closeflow.domain.model import CloseRequest, Incident, Order, OrderRef

CRITICAL: Final = "critical"
WARNING: Final = "warning"


class IncidentKind(StrEnum):
    """What happened, as operators know it; what to do about each is in docs/runbooks, which has a page for each of
    these and one for all `deferred_<reason>`. One is critical that is not said to be a warning."""

    severity: str

    def __new__(cls, kind: str, severity: str = CRITICAL) -> IncidentKind:
        """A kind is its own text, so that it is stored and compared as that."""
        member = str.__new__(cls, kind)
        member._value_ = kind
        member.severity = severity
        return member

    SUBMIT_UNKNOWN = "submit_unknown"
    ORDER_NOT_ATTENDED = "order_not_attended"
    ORDER_NOT_FOUND = "order_not_found"
    ACKNOWLEDGED_ORDER_NOT_FOUND = "acknowledged_order_not_found"
    ORDER_OUTLIVES_REQUEST = "order_outlives_request"
    POSITION_MISMATCH = "position_mismatch"
    NON_TRADE_ACTIVITY = "non_trade_activity"
    NON_TRADE_ACTIVITY_WAITS = "non_trade_activity_waits", WARNING
    UNKNOWN_POSITIONS = "unknown_positions", WARNING
    POSITION_NOT_READABLE = "position_not_readable", WARNING
    CLOSE_NOT_PLANNED = "close_not_planned", WARNING
    ORDERS_NOT_SENT = "orders_not_sent", WARNING
    ORDERS_NOT_ANSWERED = "orders_not_answered", WARNING
    REPAIRED = "repaired"
    NOT_REPAIRED = "not_repaired"
    REQUEST_NOT_WOKEN = "request_not_woken"
    GAP = "gap"
    CANCEL_REFUSED = "cancel_refused"
    CANCEL_OUTCOME_MISSING = "cancel_outcome_missing", WARNING
    ORDER_DONE_FOR_DAY = "order_done_for_day"
    TARGET_REACHED_WITH_LIVE_ORDER = "target_reached_with_live_order", WARNING
    EXPOSURE_ABOVE_OWED = "exposure_above_owed", WARNING
    OVERFILL = "overfill"
    EXECUTION_BUSTED = "execution_busted"
    EXECUTION_CORRECTED = "execution_corrected"
    POSITION_REOPENED = "position_reopened"
    RETRY_BY_HAND = "retry_by_hand"
    SIDE_CHANGED = "side_changed"
    POSITION_CHANGED_OUTSIDE = "position_changed_outside"
    RECORD_WAS_WRONG = "record_was_wrong"
    EXECUTION_WITHHELD = "execution_withheld"
    EXECUTED_ABOVE_STATED = "executed_above_stated"
    EXECUTION_CHANGED = "execution_changed"
    CHARGE_NOT_BOOKED = "charge_not_booked", WARNING
    EXECUTION_OF_ANOTHER_ORDER = "execution_of_another_order"
    CONTRADICTS_ORDER = "contradicts_order"
    QUANTITIES_DISAGREE = "quantities_disagree"
    EXECUTION_WITHOUT_ORDER = "execution_without_order"
    ORDER_REPLACED = "order_replaced"
    UNMAPPED_REFUSAL = "unmapped_refusal"
    UNKNOWN_BROKER_STATUS = "unknown_broker_status"
    INCREMENT_DOUBTED = "increment_doubted"
    MINIMUM_DOUBTED = "minimum_doubted"
    UNREADABLE_UPDATE = "unreadable_update"
    UNKNOWN_VALUE = "unknown_value"
    UNKNOWN_ORDER = "unknown_order"
    ORDER_NOT_RECORDED = "order_not_recorded"
    FOREIGN_ORDER = "foreign_order", WARNING
    EXECUTION_LEFT_OUT = "execution_left_out", WARNING
    POISON = "poison"
    CLOSE_REFUSED_BY_DATABASE = "close_refused_by_database", WARNING
    SUBMIT_ORDER_DISAGREES = "submit_order_disagrees"
    SUBMIT_ORDER_PARKED = "submit_order_parked"
    UNREADABLE_SUBMIT_ORDER = "unreadable_submit_order"
    ACCOUNT_LIMIT_BREACHED = "account_limit_breached"
    BROKER_CREDENTIALS_REFUSED = "broker_credentials_refused"
    BROKER_REFUSES_ORDERS = "broker_refuses_orders"
    EVENT_NOT_PUBLISHED = "event_not_published"
    SLOT_LOST = "slot_lost"
    SLOT_LOST_UNATTENDED = "slot_lost_unattended"
    SLOT_MISSING = "slot_missing"
    SLOT_INACTIVE = "slot_inactive", WARNING
    SLOT_LAG = "slot_lag", WARNING
    SLOT_WAL_AT_RISK = "slot_wal_at_risk"
    CONSUMER_STALLED = "consumer_stalled"
    LOG_TAIL_LOST = "log_tail_lost"
    KAFKA_AWAY = "kafka_away"
    BROKER_AWAY = "broker_away"
    DATABASE_AWAY = "database_away"
    DATABASE_CHANGED_HISTORY = "database_changed_history"
    CONNECTOR_UNREACHABLE = "connector_unreachable"
    CONNECTOR_MISSING = "connector_missing"
    CONNECTOR_STOPPED = "connector_stopped", WARNING
    CONNECTOR_TASK_FAILED = "connector_task_failed"
    HEARTBEAT_STALE = "heartbeat_stale", WARNING
    CLOCK_SKEW = "clock_skew", WARNING
    JOB_STALLED = "job_stalled"
    OUTBOX_DEFAULT_PARTITION_USED = "outbox_default_partition_used", WARNING


def runbook(kind: str) -> str:
    """The page that says what to do about incidents of a kind, from the repository's root."""
    return f"docs/runbooks/{'deferred' if kind.startswith('deferred_') else kind}.md"


def about(
    kind: IncidentKind,
    detail: str,
    *,
    subject: str | None = None,
    position_id: int | None = None,
    close_request_id: UUID | None = None,
    client_order_id: str | None = None,
) -> Incident:
    """One as severe as its kind is, about the most special of what it names."""
    return Incident(
        kind=kind,
        severity=kind.severity,
        detail=detail,
        subject=subject,
        position_id=position_id,
        close_request_id=close_request_id,
        client_order_id=client_order_id,
    )


def about_order(order: Order | OrderRef, kind: IncidentKind, detail: str) -> Incident:
    """One whose subject is the order; it names its close and its position, too."""
    return about(
        kind,
        detail,
        position_id=order.position_id,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
    )


def about_request(request: CloseRequest, kind: IncidentKind, detail: str) -> Incident:
    """One whose subject is the close; it names its position, too."""
    return about(kind, detail, position_id=request.position_id, close_request_id=request.id)
