"""Rows that the storage tests start from, written by the owner with plain SQL."""

import uuid
from typing import Any

import psycopg

Owner = psycopg.Connection[tuple[Any, ...]]


def owner(dsn: str) -> Owner:
    """A connection that commits every statement by itself."""
    return psycopg.connect(dsn, autocommit=True)


def add_position(db: Owner, symbol: str = "AAPL", quantity: int = 10) -> int:
    db.execute("INSERT INTO accounts (account_id, broker) VALUES ('acc', 'alpaca') ON CONFLICT DO NOTHING")
    row = db.execute(
        "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity)"
        " VALUES ('acc', %s, 'stock', %s, %s) RETURNING id",
        (symbol, quantity, quantity),
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_request(db: Owner, position_id: int, *, status: str = "pending", key: str = "k") -> uuid.UUID:
    request_id = uuid.uuid4()
    db.execute(
        "INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by, status,"
        " symbol, side, asset_type, target_qty, time_in_force)"
        " VALUES (%s, %s, 'acc', %s, 'f', 'me', %s, 'AAPL', 'sell', 'stock', 10, 'day')",
        (request_id, position_id, key, status),
    )
    return request_id


def add_order(db: Owner, request_id: uuid.UUID, position_id: int, *, status: str = "planned", attempt: int = 1) -> str:
    client_order_id = f"cf-{request_id.hex}-{attempt}"
    db.execute(
        "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side,"
        " quantity, order_type, time_in_force, status)"
        " VALUES (%s, %s, %s, %s, 'acc', 'AAPL', 'sell', 10, 'limit', 'day', %s)",
        (client_order_id, request_id, attempt, position_id, status),
    )
    return client_order_id


def add_event(
    db: Owner, *, topic: str = "submit-order", request_id: uuid.UUID | None = None, day: str = ""
) -> uuid.UUID:
    event_id = uuid.uuid4()
    db.execute(
        "INSERT INTO outbox_events (created_on, id, topic, key, event_type, schema_version, payload, close_request_id,"
        " attempt) VALUES (COALESCE(NULLIF(%s, '')::date, (now() AT TIME ZONE 'UTC')::date), %s, %s, '7', 'SOMETHING',"
        " 'submit-order.v1', '{}', %s, 1)",
        (day, event_id, topic, request_id),
    )
    return event_id


def add_one_of_everything(db: Owner) -> None:
    """At least one row in every table that a service writes."""
    position_id = add_position(db)
    request_id = add_request(db, position_id)
    order_id = add_order(db, request_id, position_id)
    event_id = add_event(db, request_id=request_id)
    add_event(db, day="2001-01-01")
    statements: list[tuple[str, tuple[object, ...]]] = [
        (
            "INSERT INTO position_adjustments (position_id, delta, reason, source, by) VALUES (%s, 1, 'r', 's', 'me')",
            (position_id,),
        ),
        (
            "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until)"
            " VALUES (%s, 'submit', 1, 's', now())",
            (order_id,),
        ),
        ("INSERT INTO senders (instance_id, host, pid) VALUES ('s', 'h', 1)", ()),
        ("INSERT INTO account_histories (account_id, history) VALUES ('acc', '1/1')", ()),
        ("INSERT INTO job_cycles (job, allowed_s) VALUES ('fill_gaps', 30)", ()),
        (
            "INSERT INTO order_statements (client_order_id, kind, stated_at, source)"
            " VALUES (%s, 'new', now(), 'stream')",
            (order_id,),
        ),
        (
            "INSERT INTO executions (broker, account_id, exec_id, client_order_id, position_id, kind, side, quantity,"
            " price, occurred_at, source)"
            " VALUES ('alpaca', 'acc', 'e1', %s, %s, 'trade', 'sell', 10, 1.5, now(), 'stream')",
            (order_id, position_id),
        ),
        (
            "INSERT INTO withheld_executions (broker, account_id, exec_id, client_order_id, side, quantity, price,"
            " occurred_at, source) VALUES ('alpaca', 'acc', 'w1', %s, 'sell', 10, 1.5, now(), 'backfill')",
            (order_id,),
        ),
        (
            "INSERT INTO execution_charges (broker, account_id, charge_id, exec_id, client_order_id, commission, fees,"
            " occurred_at, source) VALUES ('alpaca', 'acc', 'c1', 'e1', %s, 1, 0.5, now(), 'backfill')",
            (order_id,),
        ),
        ("INSERT INTO execution_aliases VALUES ('alpaca', 'acc', 'e2', 'e1')", ()),
        ("INSERT INTO inbox (consumer, event_id, outcome) VALUES ('order-submitter', %s, 'applied')", (event_id,)),
        ("INSERT INTO parked_records (topic, partition, \"offset\", reason) VALUES ('broker-fill', 0, 0, 'r')", ()),
        (
            'INSERT INTO dead_letter_actions (topic, partition, "offset", appended_at, action, by, reason)'
            " VALUES ('broker-fill.dlq', 0, 0, now(), 'discarded', 'me', 'r')",
            (),
        ),
        ("INSERT INTO incidents (kind, severity, position_id) VALUES ('gap', 'warning', %s)", (position_id,)),
        ("INSERT INTO operator_actions (by, action, subject, reason) VALUES ('me', 'halt', 'global', 'r')", ()),
        ("INSERT INTO trading_controls (scope, state, reason, by) VALUES ('acc', 'active', 'r', 'me')", ()),
        ("INSERT INTO broker_cursors (broker, account_id, feed, position) VALUES ('alpaca', 'acc', 'fills', '1')", ()),
        ("INSERT INTO non_trade_activities VALUES ('alpaca', 'acc', 'a1', 'OPEXP', 'AAPL', -1, 'ended', now())", ()),
        ("INSERT INTO broker_breakers (broker, account_id) VALUES ('alpaca', 'acc')", ()),
        ("INSERT INTO outbox_audit (day, audited_through) VALUES (now()::date, '9')", ()),
        ("INSERT INTO outbox_audit_positions VALUES ('submit-order', 0, 1, 1, 1)", ()),
        ("INSERT INTO debezium_heartbeat (id) VALUES (1)", ()),
        ("INSERT INTO retention_horizons VALUES ('inbox', '2001-01-01')", ()),
    ]
    for statement, values in statements:
        db.execute(statement.encode(), values)
