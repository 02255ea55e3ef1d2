"""More violations to plant: of sends, switches, limits, the books and who asked."""

from __future__ import annotations

from typing import Final

Plant = tuple[int, str, str]

_AGAIN: Final = """INSERT INTO order_sends (client_order_id, kind, n, sender, started_at, lease_until)
    SELECT client_order_id, kind, 2, 'sub-2', started_at + interval '$after', lease_until + interval '1 hour'
    FROM order_sends WHERE client_order_id = '$O3'"""
"""The lease of the first send is 30 seconds."""


def _sent_again(first: str, *, after: str) -> str:
    return ";".join((first, _AGAIN.replace("$after", after)))


SEND_PLANTS: Final[dict[str, Plant]] = {
    "send of more than its request owed then": (
        2,
        "order $O2_2",
        """UPDATE executions SET recorded_at = $long_ago WHERE client_order_id = '$O2';
           UPDATE orders SET quantity = 7 WHERE client_order_id = '$O2_2'""",
    ),
    "send of more than the position had then": (
        2,
        "order $O1",
        """INSERT INTO position_adjustments (position_id, delta, reason, source, by, at)
           VALUES (1, -5, 'r', 's', 'me', $long_ago)""",
    ),
    "attempt that two events ask for": (
        5,
        "close request $R4",
        """INSERT INTO outbox_events SELECT (jsonb_populate_record(e, jsonb_build_object('id', gen_random_uuid()))).*
           FROM outbox_events e WHERE close_request_id = '$R4' AND topic = 'submit-order'""",
    ),
    "ticket that is not its request's": (
        7,
        "order $O1",
        "UPDATE orders SET symbol = 'ELSE' WHERE client_order_id = '$O1'",
    ),
    "attempt made over a gap": (
        8,
        "order $O2_2",
        "UPDATE order_statements SET cum_qty = 5 WHERE client_order_id = '$O2' AND kind = 'canceled'",
    ),
    "cancelled attempt for more than was owed": (
        8,
        "order $O2_2",
        "UPDATE orders SET quantity = 7, cancel_requested_at = closeflow_now() WHERE client_order_id = '$O2_2'",
    ),
    "cancelled attempt for less than was owed": (
        8,
        "order $O2_2",
        "UPDATE orders SET quantity = 5, cancel_requested_at = closeflow_now() WHERE client_order_id = '$O2_2'",
    ),
    "day that is gone unjudged": (
        14,
        "day",
        "UPDATE close_requests SET created_at = created_at - interval '3 days' WHERE id = '$R5'",
    ),
    "bust that accounting is not told": (
        16,
        "execution fill-1-1-4",
        """INSERT INTO executions (broker, account_id, exec_id, client_order_id, position_id, kind, ref_exec_id, side,
                                   occurred_at, source)
           VALUES ('alpaca', 'main', 'bust-x', '$O1', 1, 'bust', 'fill-1-1-4', 'sell', closeflow_now(), 'stream')""",
    ),
    "cash that the executions do not make": (
        16,
        "position 1",
        """UPDATE outbox_events SET payload = payload || '{"cash_amount": "1"}'
           WHERE payload ->> 'exec_id' = 'fill-1-1-4'""",
    ),
    "send during a halt of everything": (
        18,
        "order $O1",
        """INSERT INTO trading_controls (scope, state, reason, by, at)
           VALUES ('global', 'halted', 'r', 'me', $long_ago)
           ON CONFLICT (scope) DO UPDATE SET state = EXCLUDED.state, at = EXCLUDED.at""",
    ),
    "send during a halt that is over": (
        18,
        "order $O2_2",
        """INSERT INTO operator_actions (by, action, subject, reason, before, after, at) VALUES
           ('me', 'halt', 'main', 'r', '{"state": "active"}', '{"state": "halted"}', $long_ago),
           ('me', 'release', 'main', 'r', '{"state": "halted"}', '{"state": "active"}',
            closeflow_now() + interval '1 hour')""",
    ),
    "order over the quantity limit": (
        19,
        "order $O1",
        "UPDATE account_limits SET max_order_qty = 9",
    ),
    "order over the notional limit": (
        19,
        "order $O1",
        "UPDATE account_limits SET max_order_notional = 900",
    ),
    "more submits than a minute allows": (
        19,
        "account main",
        "UPDATE account_limits SET submits_per_minute = 1",
    ),
    "breach without an incident": (
        19,
        "close request $R5",
        "UPDATE close_requests SET reason = 'over_max_order_qty' WHERE id = '$R5'",
    ),
    "breach that was sent": (
        19,
        "order $O5",
        "UPDATE orders SET reject_code = 'over_max_order_notional' WHERE client_order_id = '$O5'",
    ),
    "second send within the lease of an open one": (
        20,
        "order $O3",
        _sent_again(
            "UPDATE order_sends SET answer = NULL, answered_at = NULL WHERE client_order_id = '$O3'", after="29 s"
        ),
    ),
    "second send before the answer to the first": (
        20,
        "order $O3",
        _sent_again(
            """UPDATE order_sends SET answer = 'unknown', answered_at = started_at + interval '2 s'
               WHERE client_order_id = '$O3'""",
            after="1 s",
        ),
    ),
    "send again after it was accepted": (
        20,
        "order $O3",
        _sent_again(
            "UPDATE order_sends SET answered_at = started_at + interval '1 s' WHERE client_order_id = '$O3'",
            after="31 s",
        ),
    ),
    "request of nobody": (21, "close request $R1", "UPDATE close_requests SET requested_by = ' ' WHERE id = '$R1'"),
    "request of another account": (
        21,
        "close request $R1",
        "UPDATE close_requests SET account_id = 'other' WHERE id = '$R1'",
    ),
    "deed without a reason": (
        21,
        "operator action",
        "INSERT INTO operator_actions (by, action, subject, reason) VALUES ('me', 'halt', 'global', '')",
    ),
}
