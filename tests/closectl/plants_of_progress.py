"""More violations to plant: of progress (invariant 13), and what only looks like one of them."""

from __future__ import annotations

from typing import Final

Plant = tuple[int, str, str]


def _and(*parts: str) -> str:
    return ";".join(parts)


_ACCEPTED_LONG_AGO: Final = """UPDATE close_requests SET created_at = $long_ago,
        next_attempt_at = closeflow_now() + interval '20 s', emission = 120, reason = NULL WHERE id = '$R4';
    UPDATE status_history SET at = $long_ago WHERE entity_id = '$R4'"""
_TIMED: Final = "UPDATE close_requests SET working_timeout_s = 60 WHERE id = '$R3'"
_PLANNED_LONG_AGO: Final = _and(
    _TIMED,
    "UPDATE orders SET created_at = $long_ago WHERE client_order_id = '$O3'",
    "UPDATE status_history SET at = $long_ago WHERE entity_id IN ('$O3', '$R3')",
)
_RETRY_LONG_DUE: Final = (
    """UPDATE close_requests SET status = 'retryable', next_attempt_at = $long_ago WHERE id = '$R4'"""
)
_SUSPENDED: Final = """UPDATE orders SET status = 'suspended', created_at = created_at - interval '$since'
        WHERE client_order_id = '$O3';
    UPDATE status_history SET at = closeflow_now() - interval '$since' WHERE entity_id IN ('$O3', '$R3')"""

_DEFERRED: Final = """UPDATE close_requests SET reason = '$reason', created_at = $long_ago,
        deferred_since = closeflow_now() - interval '$since', next_attempt_at = closeflow_now() + interval '60 s'
        WHERE id = '$R4'"""


def _deferred(reason: str, since: str) -> str:
    return _DEFERRED.replace("$reason", reason).replace("$since", since)


PROGRESS_PLANTS: Final[dict[str, Plant]] = {
    "close that is asked for again for ever": (13, "close request $R4", _ACCEPTED_LONG_AGO),
    "close without a quote of which nobody is told": (
        13,
        "close request $R4",
        _deferred("no_fresh_quote", "5 minutes"),
    ),
    "close that no broker takes, of which nobody is told": (
        13,
        "close request $R4",
        _deferred("broker_unavailable", "4 minutes"),
    ),
    "close that waits for the market for a week": (13, "close request $R4", _deferred("market_closed", "7 days")),
    "close of which somebody is told for another reason of the account": (
        13,
        "close request $R4",
        _and(
            _deferred("no_market_clock", "5 minutes"),
            """INSERT INTO incidents (kind, severity, detail)
                VALUES ('deferred_broker_unavailable', 'warning', '{"subject": "main"}')""",
        ),
    ),
    "deadline of a waiting close that ends nothing": (
        13,
        "close request $R4",
        """UPDATE close_requests SET deadline_at = $long_ago, reason = 'market_closed',
            next_attempt_at = closeflow_now() + interval '1 hour' WHERE id = '$R4'""",
    ),
    "cancel of a waiting close that ends nothing": (
        13,
        "close request $R4",
        "UPDATE close_requests SET cancel_requested_at = $long_ago WHERE id = '$R4'",
    ),
    "cancel of a close that nobody asks the broker for": (
        13,
        "close request $R3",
        "UPDATE close_requests SET cancel_requested_at = $long_ago WHERE id = '$R3'",
    ),
    "order that works for longer than it may": (13, "close request $R3", _PLANNED_LONG_AGO),
    "cancel that comes to nothing": (
        13,
        "close request $R3",
        "UPDATE orders SET cancel_requested_at = $long_ago WHERE client_order_id = '$O3'",
    ),
    "cancel of an order that nobody sends": (
        13,
        "close request $R3",
        """UPDATE orders SET status = 'planned', cancel_requested_at = $long_ago,
            next_send_at = closeflow_now() + interval '1 s' WHERE client_order_id = '$O3'""",
    ),
    "order that is suspended for days": (13, "close request $R3", _SUSPENDED.replace("$since", "5 days")),
    "order that stays unknown however often it is sent": (
        13,
        "close request $R3",
        """UPDATE orders SET status = 'submit_unknown' WHERE client_order_id = '$O3';
            UPDATE order_sends SET started_at = $long_ago, answer = 'unknown' WHERE client_order_id = '$O3';
            INSERT INTO order_sends (client_order_id, kind, n, sender, started_at, lease_until)
            VALUES ('$O3', 'submit', 2, 'sub-2', closeflow_now(), closeflow_now() + interval '30 s')""",
    ),
}

WAITING: Final[dict[str, str]] = {
    "order within its time to work": _and(
        _TIMED,
        "UPDATE orders SET created_at = closeflow_now() - interval '100 s' WHERE client_order_id = '$O3'",
        "UPDATE status_history SET at = closeflow_now() - interval '100 s' WHERE entity_id IN ('$O3', '$R3')",
    ),
    "order that may work for hours": _and(
        _PLANNED_LONG_AGO, "UPDATE close_requests SET working_timeout_s = 7200 WHERE id = '$R3'"
    ),
    "order that was found a moment ago": _and(
        _PLANNED_LONG_AGO, "UPDATE status_history SET at = closeflow_now() WHERE entity_id = '$O3'"
    ),
    "order with an incident": _and(
        _PLANNED_LONG_AGO,
        "INSERT INTO incidents (kind, severity, client_order_id) VALUES ('cancel_refused', 'critical', '$O3')",
    ),
    "order whose incident was closed a moment ago": _and(
        _PLANNED_LONG_AGO,
        """INSERT INTO incidents (kind, severity, client_order_id, closed_at)
            VALUES ('order_not_attended', 'critical', '$O3', closeflow_now())""",
    ),
    "order that is suspended over a weekend": _SUSPENDED.replace("$since", "3 days"),
    "cancel on its way": """UPDATE orders SET cancel_requested_at = closeflow_now() - interval '4 minutes'
        WHERE client_order_id = '$O3'""",
    "close that waits for the market": _and(
        _ACCEPTED_LONG_AGO, "UPDATE close_requests SET reason = 'market_closed' WHERE id = '$R4'"
    ),
    "close that waits for the market over a weekend": _deferred("market_closed", "3 days"),
    "close without a quote for a moment": _deferred("no_fresh_quote", "2 minutes"),
    "close without a quote, of which somebody is told": _and(
        _deferred("no_fresh_quote", "1 hour"),
        """INSERT INTO incidents (kind, severity, close_request_id)
            VALUES ('deferred_no_fresh_quote', 'warning', '$R4')""",
    ),
    "close of an account of which somebody is told": _and(
        _deferred("broker_unavailable", "1 hour"),
        """INSERT INTO incidents (kind, severity, detail)
            VALUES ('deferred_broker_unavailable', 'warning', '{"subject": "main"}')""",
    ),
    "close whose event is not in Kafka": _and(
        _ACCEPTED_LONG_AGO,
        """INSERT INTO incidents (kind, severity, detail)
            SELECT 'event_not_published', 'critical', jsonb_build_object('subject', id || '/' || emission)
            FROM outbox_events WHERE close_request_id = '$R4' AND topic = 'submit-order'""",
    ),
    "close whose event came back to Kafka a moment ago": _and(
        _ACCEPTED_LONG_AGO,
        """INSERT INTO incidents (kind, severity, detail, closed_at)
            SELECT 'event_not_published', 'critical', jsonb_build_object('subject', id), closeflow_now()
            FROM outbox_events WHERE close_request_id = '$R4' AND topic = 'submit-order'""",
    ),
    "close that was let go on a moment ago": _and(
        _ACCEPTED_LONG_AGO,
        """INSERT INTO incidents (kind, severity, close_request_id, closed_at)
            VALUES ('poison', 'critical', '$R4', closeflow_now())""",
    ),
    "retry that a halt holds back": _and(
        _RETRY_LONG_DUE,
        """INSERT INTO trading_controls (scope, state, reason, by, at)
            VALUES ('main', 'halted', 'r', 'me', $long_ago)""",
    ),
    "retry that a halt held back until now": _and(
        _RETRY_LONG_DUE,
        """INSERT INTO trading_controls (scope, state, reason, by) VALUES ('main', 'active', 'r', 'me')""",
    ),
}
"""Nothing of it is a violation of invariant 13; others may be."""
