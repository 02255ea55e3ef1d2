"""Each role can do what it writes, and nothing else. Tried for real, as the role, and undone."""

from collections.abc import Iterator
from typing import Final

import psycopg
import pytest
from psycopg import sql

from closeflow.storage.schema import migrate
from closeflow.storage.schema.tables import metadata
from tests.conftest import Database
from tests.storage.seeding import Owner, add_one_of_everything, owner

API: Final = "closeflow_close_api"
SUB: Final = "closeflow_order_submitter"
GATEWAY: Final = "closeflow_broker_gateway"
FP: Final = "closeflow_fill_processor"
REC: Final = "closeflow_reconciler"
OP: Final = "closeflow_operator"
DEBEZIUM: Final = "closeflow_debezium"
STATE: Final = {API, SUB, FP, REC, OP}

INSERT_ADJUSTMENT: Final = """
    INSERT INTO position_adjustments (position_id, delta, reason, source, by)
    SELECT id, 1, 'r', 's', 'me' FROM positions"""
INSERT_REQUEST: Final = """
    INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by,
        requested_reason, symbol, side, asset_type, target_qty, time_in_force, status) SELECT gen_random_uuid(), id,
        'acc', 'new', 'f', 'me', 'r', 'AAPL', 'sell', 'stock', 10, 'day', 'failed' FROM positions"""
INSERT_ORDER: Final = """
    INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side, quantity,
        order_type, time_in_force) SELECT regexp_replace(client_order_id, '-1$', '-2'), close_request_id, 2,
        position_id, account_id, symbol, side, quantity, order_type, time_in_force FROM orders WHERE attempt = 1"""
INSERT_EVENT: Final = """
    INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload)
    VALUES (gen_random_uuid(), 'submit-order', '7', 'X', 'submit-order.v1', '{}')"""
FORGED_EVENT: Final = """
    INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload, xact_id)
    VALUES (gen_random_uuid(), 'submit-order', '7', 'X', 'submit-order.v1', '{}', '3')"""
DECLARE_LOST: Final = """
    INSERT INTO order_statements (client_order_id, kind, stated_at, source)
    SELECT client_order_id, 'lost', now(), 'operator' FROM orders WHERE attempt = 1"""
INSERT_EXECUTION: Final = """
    INSERT INTO executions (broker, account_id, exec_id, client_order_id, position_id, kind, side, quantity, price,
        occurred_at, source) SELECT broker, account_id, 'e9', client_order_id, position_id, kind, side, quantity,
        price, occurred_at, source FROM executions"""
INSERT_WITHHELD: Final = """
    INSERT INTO withheld_executions (broker, account_id, exec_id, client_order_id, side, quantity, price, occurred_at,
        source) SELECT broker, account_id, 'w9', client_order_id, side, quantity, price, occurred_at, source
    FROM executions LIMIT 1"""
INSERT_NON_TRADE: Final = """
    INSERT INTO non_trade_activities (broker, account_id, activity_id, kind, outcome)
    VALUES ('alpaca', 'acc', 'a9', 'SPLIT', 'told')"""
RECORD_ACTION: Final = """
    INSERT INTO operator_actions (by, action, subject, reason, before, after, account_id, trace_id)
    VALUES ('me', 'halt', 'global', 'r', '{}', '{}', 'acc', 't')"""

# what is done -> who may
MAY: Final[tuple[tuple[str, set[str]], ...]] = (
    ("INSERT INTO accounts (account_id, broker) VALUES ('x', 'alpaca')", {OP}),
    ("SELECT account_id, broker FROM accounts", STATE | {GATEWAY}),
    ("SELECT credentials_ref FROM accounts", {SUB, GATEWAY, REC, OP}),
    ("SELECT FROM positions ORDER BY id FOR NO KEY UPDATE", STATE),
    ("UPDATE positions SET status = 'closing', active_close_request_id = NULL, version = version + 1", STATE),
    ("UPDATE positions SET quantity = 3", {FP, OP, REC}),
    ("UPDATE positions SET account_id = 'acc'", set()),
    (INSERT_ADJUSTMENT, {OP, REC}),
    ("UPDATE position_adjustments SET delta = 2", set()),
    (INSERT_REQUEST, {API, OP}),
    ("UPDATE close_requests SET status = 'failed', reason = 'x'", STATE),
    ("UPDATE close_requests SET target_qty = 11", set()),
    ("UPDATE close_requests SET idempotency_key = 'other'", set()),
    ("UPDATE close_requests SET requested_reason = 'other'", set()),
    ("UPDATE close_requests SET xact_id = '3'", set()),
    (INSERT_ORDER, {SUB}),
    ("UPDATE orders SET status = 'denied'", STATE),
    ("UPDATE orders SET reject_code = 'x'", {SUB, FP, OP}),
    ("UPDATE orders SET cancel_requested_at = now()", STATE),
    ("UPDATE orders SET executed_qty = 1", {FP, OP}),
    ("UPDATE orders SET reconcile_not_found_count = 1", {SUB, FP, OP}),
    ("UPDATE orders SET close_request_id = close_request_id", set()),
    ("UPDATE order_sends SET answer = 'unknown', answered_at = now()", {SUB}),
    ("INSERT INTO senders (instance_id, host, pid) VALUES ('t', 'h', 2)", {SUB}),
    ("UPDATE senders SET exited_at = now()", {SUB, OP}),
    ("UPDATE senders SET last_seen_at = now()", {SUB}),
    (DECLARE_LOST, {FP, OP}),
    ("UPDATE order_statements SET cum_qty = 1", {FP, OP}),
    (INSERT_EXECUTION, {FP, OP}),
    ("UPDATE executions SET quantity = 1", set()),
    ("INSERT INTO execution_aliases VALUES ('alpaca', 'acc', 'e3', 'e1')", {FP, OP}),
    (INSERT_WITHHELD, {FP}),
    ("UPDATE withheld_executions SET quantity = 1", set()),
    ("UPDATE execution_aliases SET exec_id = exec_id", set()),
    (INSERT_EVENT, STATE),
    (FORGED_EVENT, set()),
    ("UPDATE outbox_events SET payload = '{}'", set()),
    ("SELECT FROM outbox_events", STATE | {DEBEZIUM}),
    ("INSERT INTO inbox (consumer, event_id, outcome) VALUES ('c', gen_random_uuid(), 'applied')", {SUB, FP}),
    ("UPDATE inbox SET outcome = 'applied'", {SUB, FP}),
    ("UPDATE parked_records SET released_at = now()", {SUB, FP, REC, OP}),
    ("UPDATE parked_records SET bytes = NULL", set()),
    ("SELECT FROM dead_letter_actions", {OP, REC}),
    (
        "INSERT INTO dead_letter_actions VALUES ('broker-fill.dlq', 0, 1, now(), 'replayed', 'me', 'r', now())",
        {OP},
    ),
    ("UPDATE dead_letter_actions SET reason = ''", set()),
    ("INSERT INTO status_history (entity, entity_id, to_status, by) VALUES ('order', 'x', 'new', 'me')", set()),
    ("UPDATE status_history SET by = 'me'", set()),
    ("INSERT INTO incidents (kind, severity) VALUES ('x', 'warning')", STATE | {GATEWAY}),
    ("UPDATE incidents SET closed_at = now()", STATE | {GATEWAY}),
    ("UPDATE incidents SET kind = 'other'", set()),
    (RECORD_ACTION, {API, REC, OP}),
    ("INSERT INTO operator_actions (by, action, subject, reason, at) VALUES ('me', 'a', 's', 'r', now())", {REC, OP}),
    ("UPDATE operator_actions SET reason = ''", set()),
    ("SELECT FROM operator_actions", {API, REC, OP}),
    ("UPDATE trading_controls SET state = 'halted'", {OP}),
    ("UPDATE account_limits SET window_count = 1", {SUB, OP}),
    ("UPDATE account_limits SET max_order_qty = 9", {OP}),
    ("UPDATE broker_cursors SET position = '2'", {GATEWAY, REC}),
    (INSERT_NON_TRADE, {REC}),
    ("UPDATE non_trade_activities SET outcome = 'told'", set()),
    ("UPDATE broker_breakers SET state = 'open'", {SUB}),
    ("UPDATE outbox_audit SET missing = '[]'", {REC}),
    ("INSERT INTO outbox_audit_positions VALUES ('t', 0, 1)", {REC}),
    ("SELECT FROM outbox_audit_positions", {REC, OP}),
    ("SELECT FROM account_histories", STATE),
    ("UPDATE account_histories SET history = '1/1'", {REC}),
    ("SELECT closeflow_is_settled('acc')", STATE),
    ("SELECT FROM job_cycles", STATE | {GATEWAY}),
    ("INSERT INTO job_cycles (job, allowed_s) VALUES ('x', 30)", {REC}),
    ("UPDATE job_cycles SET cycles = 1", {REC}),
    ("SELECT closeflow_drop_lost_slot('not_there')", {REC}),
    ("DELETE FROM debezium_heartbeat", {DEBEZIUM}),
    ("INSERT INTO debezium_heartbeat (id) VALUES (2)", {DEBEZIUM}),
    ("SELECT FROM outbox_status", {OP}),
    ("SELECT FROM outbox_events_default", {REC}),
    ("SELECT setval(pg_get_serial_sequence('positions', 'id'), 9)", {OP}),
    ("SELECT FROM alembic_version", STATE | {GATEWAY}),
    ("SELECT closeflow_ensure_outbox_partitions(7)", {REC, OP}),
    ("SELECT closeflow_drop_outbox_partition('1999-01-01')", {REC, OP}),
    ("SELECT closeflow_drop_expired('inbox', '1999-01-01', 1)", {REC, OP}),
    ("SELECT FROM retention_horizons", {OP}),
    ("INSERT INTO retention_horizons VALUES ('inbox', now())", set()),
    ("DELETE FROM inbox", set()),
    ("DELETE FROM status_history", set()),
    ("DELETE FROM incidents", set()),
    ("CREATE TABLE mine (id integer)", set()),
    ("ALTER TABLE orders DISABLE TRIGGER ALL", set()),
)


@pytest.fixture(scope="module")
def db(module_database: Database) -> Iterator[Owner]:
    with owner(module_database.admin_dsn) as connection:
        add_one_of_everything(connection)
        connection.execute("DELETE FROM debezium_heartbeat")
        yield connection


def is_allowed(db: Owner, role: str, statement: str) -> bool:
    try:
        with db.transaction(force_rollback=True):
            db.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
            db.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


@pytest.mark.parametrize(("statement", "allowed"), MAY, ids=[" ".join(one[0].split())[:50] for one in MAY])
def test_who_may(db: Owner, statement: str, allowed: set[str]) -> None:
    assert {role for role in migrate.ROLES if is_allowed(db, role, statement)} == allowed


@pytest.mark.parametrize("privilege", ["DELETE", "TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN"])
def test_nobody_removes_rows_or_changes_tables(db: Owner, privilege: str) -> None:
    held = db.execute(
        "SELECT r, t FROM unnest(%s::text[]) r, unnest(%s::text[]) t WHERE has_table_privilege(r, t, %s)",
        (list(migrate.ROLES), list(metadata.tables), privilege),
    ).fetchall()
    assert held == ([(DEBEZIUM, "debezium_heartbeat")] if privilege == "DELETE" else [])


def test_debezium_replicates_and_sees_two_tables(db: Owner) -> None:
    seen = db.execute(
        "SELECT t FROM unnest(%s::text[]) t WHERE has_table_privilege(%s, t, 'SELECT') ORDER BY 1",
        (list(metadata.tables), DEBEZIUM),
    ).fetchall()
    replicating = db.execute("SELECT rolname FROM pg_roles WHERE rolreplication AND rolname LIKE 'closeflow\\_%'")
    assert seen == [("debezium_heartbeat",), ("outbox_events",)]
    assert (DEBEZIUM,) in replicating.fetchall()
    assert db.execute(
        "SELECT bool_or(rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls) FROM pg_roles"
        " WHERE rolname = ANY (%s)",
        (list(migrate.ROLES),),
    ).fetchone() == (False,)


@pytest.mark.parametrize("role", migrate.ROLES)
def test_each_role_logs_in_with_its_password(module_database: Database, role: str) -> None:
    with psycopg.connect(module_database.dsn(role)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (role,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(module_database.stack.postgres_dsn(role, "wrong", module_database.name))
