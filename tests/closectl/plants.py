"""Violations to plant: SQL that breaks one invariant on the database of seeding.py, and what must be named for it.

Triggers and foreign keys do not act while it runs; checks and unique indexes are dropped by it. It is taken back.
"""

from __future__ import annotations

from string import Template
from typing import Final

from tests.closectl.seeding import REQUESTS, order_id

_NAMES: Final = {
    **{f"R{number}": str(request_id) for number, request_id in REQUESTS.items()},
    **{f"O{number}": order_id(number) for number in REQUESTS},
    **{f"O{number}_2": order_id(number, 2) for number in (2, 3)},
    "long_ago": "closeflow_now() - interval '1 hour'",
}
"""$R1 is the close request of position 1, $O1 its first order, $O2_2 the second order of position 2."""

Plant = tuple[int, str, str]
"""The invariant, the subject to be named, and the SQL of the violation."""

PLANTS: Final[dict[str, Plant]] = {
    "quantity that its executions do not make": (
        1,
        "position 1",
        "UPDATE positions SET quantity = 3, status = 'open' WHERE id = 1",
    ),
    "adjustment that moved nothing": (
        1,
        "position 6",
        "INSERT INTO position_adjustments (position_id, delta, reason, source, by) VALUES (6, 1, 'r', 's', 'me')",
    ),
    "sign that flipped in silence": (1, "position 6", "UPDATE positions SET opening_qty = -0.75 WHERE id = 6"),
    "order larger than the position": (
        2,
        "close request $R3",
        "UPDATE orders SET quantity = 9 WHERE client_order_id = '$O3'",
    ),
    "second live order of a request": (
        3,
        "close request $R3",
        """INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object(
                'client_order_id', '$O3_2', 'attempt', 2, 'broker_order_id', NULL))).*
            FROM orders o WHERE client_order_id = '$O3'""",
    ),
    "second unfinished request": (
        4,
        "position 3",
        """DROP INDEX close_requests_active_key;
            UPDATE close_requests SET position_id = 3 WHERE id = '$R4'""",
    ),
    "key that made two requests": (
        5,
        "position 1",
        """ALTER TABLE close_requests DROP CONSTRAINT close_requests_position_id_idempotency_key_key;
            UPDATE close_requests SET position_id = 1, idempotency_key = 'key-1' WHERE id = '$R2'""",
    ),
    "request without its outbox row": (
        6,
        "close request $R4",
        "DELETE FROM outbox_events WHERE close_request_id = '$R4' AND topic = 'submit-order'",
    ),
    "outbox row of another transaction": (
        6,
        "close request $R1",
        "UPDATE close_requests SET xact_id = '1' WHERE id = '$R1'",
    ),
    "outbox row without its request": (6, "event", "DELETE FROM close_requests WHERE id = '$R4'"),
    "id that is not of request and attempt": (
        7,
        "order cf-mine-1",
        """ALTER TABLE orders DROP CONSTRAINT orders_client_order_id_check;
            UPDATE orders SET client_order_id = 'cf-mine-1' WHERE client_order_id = '$O1'""",
    ),
    "send of an order that is not there": (
        7,
        "order $O1",
        "DELETE FROM orders WHERE client_order_id = '$O1'",
    ),
    "send before its order": (
        7,
        "order $O1",
        "UPDATE order_sends SET started_at = $long_ago WHERE client_order_id = '$O1'",
    ),
    "order at the broker that was not sent": (
        7,
        "order $O1",
        "UPDATE order_sends SET answer = 'not_sent' WHERE client_order_id = '$O1'",
    ),
    "attempt made while the one before it lived": (
        8,
        "order $O2_2",
        "UPDATE status_history SET to_status = 'new' WHERE entity_id = '$O2' AND to_status = 'canceled'",
    ),
    "attempt without the one before it": (
        8,
        "order $O2_2",
        "DELETE FROM orders WHERE client_order_id = '$O2'",
    ),
    "attempt for more than was owed": (
        8,
        "order $O2_2",
        "UPDATE orders SET quantity = 7 WHERE client_order_id = '$O2_2'",
    ),
    "attempt for less than was owed": (
        8,
        "order $O2_2",
        "UPDATE orders SET quantity = 5 WHERE client_order_id = '$O2_2'",
    ),
    "move that the table does not have": (
        9,
        "close request $R1",
        """UPDATE status_history SET from_status = 'submitted', to_status = 'pending'
            WHERE entity_id = '$R1' AND to_status = 'completed'""",
    ),
    "change that left no history": (
        9,
        "close request $R4",
        "UPDATE close_requests SET status = 'submitted' WHERE id = '$R4'",
    ),
    "hole in the history": (
        9,
        "position 2",
        "DELETE FROM status_history WHERE entity = 'position' AND entity_id = '2' AND to_status = 'close_retryable'",
    ),
    "sequence that went back": (
        9,
        "order $O1",
        "UPDATE orders SET broker_update_seq = 1 WHERE client_order_id = '$O1'",
    ),
    "status that the facts do not make": (
        9,
        "order $O3",
        "UPDATE orders SET status = 'new' WHERE client_order_id = '$O3'",
    ),
    "executed quantity that the facts do not make": (
        10,
        "order $O1",
        "UPDATE orders SET executed_qty = 9 WHERE client_order_id = '$O1'",
    ),
    "average price that the facts do not make": (
        10,
        "order $O1",
        "UPDATE orders SET avg_price = 1 WHERE client_order_id = '$O1'",
    ),
    "more executed than ordered, in silence": (
        10,
        "order $O1",
        "UPDATE orders SET quantity = 9 WHERE client_order_id = '$O1'",
    ),
    "execution of an order that is not there": (
        10,
        "order $O1",
        "DELETE FROM orders WHERE client_order_id = '$O1'",
    ),
    "filled quantity that the executions do not make": (
        11,
        "close request $R1",
        "UPDATE close_requests SET filled_qty = 9 WHERE id = '$R1'",
    ),
    "completed with a live order": (
        11,
        "close request $R3",
        "UPDATE close_requests SET status = 'completed', reason = 'externally_closed' WHERE id = '$R3'",
    ),
    "completed with less than its target": (
        11,
        "close request $R1",
        "UPDATE close_requests SET target_qty = 11 WHERE id = '$R1'",
    ),
    "failed with all of its target": (
        11,
        "close request $R1",
        "UPDATE close_requests SET status = 'failed' WHERE id = '$R1'",
    ),
    "closed with a quantity": (
        11,
        "position 6",
        """ALTER TABLE positions DROP CONSTRAINT positions_closed_check;
           UPDATE positions SET status = 'closed' WHERE id = 6""",
    ),
    "nothing left and not closed": (11, "position 1", "UPDATE positions SET status = 'open' WHERE id = 1"),
    "closing without an active request": (
        11,
        "position 4",
        "UPDATE positions SET active_close_request_id = NULL WHERE id = 4",
    ),
    "active request that is over": (
        11,
        "position 5",
        "UPDATE positions SET active_close_request_id = '$R5' WHERE id = 5",
    ),
    "execution booked twice under one id": (
        12,
        "execution fill-1-1-4",
        """ALTER TABLE executions DROP CONSTRAINT executions_pkey CASCADE;
           INSERT INTO executions SELECT * FROM executions WHERE exec_id = 'fill-1-1-4'""",
    ),
    "one fill booked under two ids": (
        12,
        "order $O1",
        """INSERT INTO executions SELECT (jsonb_populate_record(e, '{"exec_id": "again"}')).*
           FROM executions e WHERE exec_id = 'fill-1-1-4'""",
    ),
    "one of the fills that were told when the order was done, booked under two ids": (
        12,
        "order $O1",
        """UPDATE executions SET cum_qty = 10 WHERE client_order_id = '$O1';
           INSERT INTO executions SELECT (jsonb_populate_record(e, '{"exec_id": "again"}')).*
           FROM executions e WHERE exec_id = 'fill-1-1-4'""",
    ),
    "order planned without a receipt": (
        12,
        "order $O1",
        """DELETE FROM inbox WHERE event_id IN (SELECT id FROM outbox_events
            WHERE close_request_id = '$R1' AND topic = 'submit-order')""",
    ),
    "request that nobody planned": (
        13,
        "close request $R4",
        "UPDATE close_requests SET created_at = $long_ago, next_attempt_at = NULL WHERE id = '$R4'",
    ),
    "frozen without an incident": (
        13,
        "close request $R4",
        "UPDATE close_requests SET frozen_reason = 'poison' WHERE id = '$R4'",
    ),
    "retry that is long due": (
        13,
        "close request $R4",
        "UPDATE close_requests SET status = 'retryable', next_attempt_at = $long_ago WHERE id = '$R4'",
    ),
    "order that nobody sends": (
        13,
        "close request $R3",
        """UPDATE orders SET status = 'planned', created_at = $long_ago, next_send_at = $long_ago
            WHERE client_order_id = '$O3';
            UPDATE order_sends SET lease_until = $long_ago WHERE client_order_id = '$O3'""",
    ),
    "order that stays unknown": (
        13,
        "close request $R3",
        """UPDATE orders SET status = 'submit_unknown' WHERE client_order_id = '$O3';
            UPDATE order_sends SET started_at = $long_ago WHERE client_order_id = '$O3'""",
    ),
    "gap that nobody names": (
        13,
        "order $O3",
        """UPDATE orders SET stated_cum_qty = 3, last_broker_update_at = $long_ago
            WHERE client_order_id = '$O3'""",
    ),
    "live order of a finished request": (
        13,
        "order $O3",
        "UPDATE close_requests SET status = 'failed' WHERE id = '$R3'",
    ),
    "event that the audit misses": (
        14,
        "event 01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22",
        """INSERT INTO outbox_audit (day, audited_through, missing) VALUES (now()::date, '9',
           '[{"id": "01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22", "emission": 1}]')""",
    ),
    "version without its event": (
        15,
        "position 2",
        "DELETE FROM outbox_events WHERE position_id = 2 AND position_version = 3",
    ),
    "version raised without an event": (15, "position 1", "UPDATE positions SET version = version + 1 WHERE id = 1"),
    "execution that accounting is not told": (
        16,
        "execution fill-1-1-4",
        "DELETE FROM outbox_events WHERE payload ->> 'exec_id' = 'fill-1-1-4'",
    ),
    "execution that accounting is told wrong": (
        16,
        "execution fill-1-1-4",
        """UPDATE outbox_events SET payload = payload || '{"quantity": "5"}'
           WHERE payload ->> 'exec_id' = 'fill-1-1-4'""",
    ),
    "event of an execution that is not there": (
        16,
        "event",
        "DELETE FROM executions WHERE exec_id = 'fill-1-1-4'",
    ),
    "execution told by two events": (
        16,
        "execution fill-1-1-4",
        """INSERT INTO outbox_events SELECT (jsonb_populate_record(e, jsonb_build_object('id', gen_random_uuid()))).*
           FROM outbox_events e WHERE payload ->> 'exec_id' = 'fill-1-1-4'""",
    ),
    "newest event that is not the position": (
        17,
        "position 1",
        """UPDATE outbox_events SET payload = payload || '{"quantity": "1"}'
           WHERE position_id = 1 AND position_version = 4""",
    ),
}


def named(text: str) -> str:
    """A subject or a statement with its ids put in."""
    return Template(text).substitute(_NAMES)


def statements(text: str) -> list[str]:
    """The statements one by one, as they go to the driver."""
    unguarded = "SET LOCAL session_replication_role = replica"
    return [unguarded, *named(text).replace(": ", "\\: ").split(";")]
