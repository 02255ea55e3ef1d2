"""One role per service, each with what it writes.

Roles belong to the whole cluster and may be used by other databases, so a downgrade takes the grants back and leaves the roles.
They have no password here: closeflow.storage.schema.migrate.set_role_passwords gives it.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

API = "closeflow_close_api"
SUBMITTER = "closeflow_order_submitter"
GATEWAY = "closeflow_broker_gateway"
FILLS = "closeflow_fill_processor"
RECONCILER = "closeflow_reconciler"
OPERATOR = "closeflow_operator"
DEBEZIUM = "closeflow_debezium"
READERS = (API, SUBMITTER, FILLS, RECONCILER, OPERATOR)
SERVICES = (*READERS, GATEWAY)

READ_BY_ALL = (
    "alembic_version positions position_adjustments close_requests orders order_sends senders broker_breakers "
    "order_statements executions execution_aliases parked_records outbox_events inbox outbox_audit status_history "
    "incidents operator_actions trading_controls account_limits broker_cursors debezium_heartbeat outbox_status"
).split()
READ_BY_GATEWAY = (
    "alembic_version accounts orders order_statements executions execution_aliases broker_cursors incidents"
)

# What is fixed when a request is accepted (target, side, keys, xact_id) can be changed by nobody.
REQUEST_MOVES = (
    "status, reason, filled_qty, attempt, retry_count, next_attempt_at, emission, auto_retry, frozen_reason, "
    "cancel_requested_at, submitted_at, completed_at, updated_at"
)
POSITION_MOVES = "status, active_close_request_id, exposure_unproven, closed_at, version, updated_at"
POSITION_LEDGER = f"{POSITION_MOVES}, quantity, opening_qty, reopened_at"
ORDER_FOLD = (
    "status, quantity, broker_order_id, executed_qty, stated_cum_qty, avg_price, overfill_qty, broker_update_seq, "
    "last_broker_update_at, reconcile_not_found_count, next_send_at, cancel_requested_at, reject_code, reject_class, "
    "updated_at"
)
# created_on and xact_id are left to their defaults: the audit and the 201 <=> outbox check rest on them.
OUTBOX_INSERT = (
    "id, emission, topic, key, event_type, schema_version, payload, traceparent, occurred_at, close_request_id, "
    "attempt, position_id, position_version"
)
REQUEST_INSERT = (
    "id, position_id, account_id, idempotency_key, fingerprint, requested_by, status, reason, symbol, side, "
    "asset_type, target_qty, filled_qty, attempt, retry_count, max_retries, order_type, limit_price, "
    "max_slippage_bps, time_in_force, working_timeout_s, deadline_at, next_attempt_at, emission, auto_retry, "
    "frozen_reason, cancel_requested_at, traceparent, created_at, submitted_at, completed_at, updated_at"
)
INCIDENT_MOVES = "severity, detail, last_seen_at, count, closed_at, closed_by, resolution"

# (privileges, table, roles)
GRANTS = (
    ("SELECT (account_id, broker)", "accounts", (API, FILLS)),
    ("SELECT", "accounts", (SUBMITTER, RECONCILER)),
    ("SELECT, INSERT, UPDATE", "accounts", (OPERATOR,)),
    (f"UPDATE ({POSITION_MOVES})", "positions", (API, SUBMITTER, RECONCILER)),
    (f"INSERT, UPDATE ({POSITION_LEDGER})", "positions", (FILLS, OPERATOR)),
    ("INSERT", "position_adjustments", (OPERATOR,)),
    (f"INSERT ({REQUEST_INSERT}), UPDATE ({REQUEST_MOVES})", "close_requests", (API, OPERATOR)),
    (f"UPDATE ({REQUEST_MOVES})", "close_requests", (SUBMITTER, FILLS, RECONCILER)),
    (f"INSERT ({OUTBOX_INSERT})", "outbox_events", READERS),
    (
        "INSERT, UPDATE (status, reconcile_not_found_count, next_send_at, cancel_requested_at, reject_code, "
        "reject_class, updated_at)",
        "orders",
        (SUBMITTER,),
    ),
    (f"UPDATE ({ORDER_FOLD})", "orders", (FILLS, OPERATOR)),
    ("UPDATE (cancel_requested_at, updated_at)", "orders", (API,)),
    # A cancel asked for shows at once as pending_cancel (rule R2).
    ("UPDATE (status, cancel_requested_at, updated_at)", "orders", (RECONCILER,)),
    ("INSERT, UPDATE", "order_sends", (SUBMITTER,)),
    ("INSERT, UPDATE (host, pid, started_at, last_seen_at, exited_at)", "senders", (SUBMITTER,)),
    ("UPDATE (exited_at)", "senders", (OPERATOR,)),
    ("INSERT, UPDATE", "order_statements", (FILLS, OPERATOR)),
    ("INSERT", "executions", (FILLS, OPERATOR)),
    ("INSERT", "execution_aliases", (FILLS,)),
    ("INSERT, UPDATE (outcome, received_at)", "inbox", (SUBMITTER, FILLS)),
    ("INSERT, UPDATE (released_at)", "parked_records", (SUBMITTER, FILLS)),
    ("UPDATE (released_at)", "parked_records", (OPERATOR,)),
    (f"INSERT, UPDATE ({INCIDENT_MOVES})", "incidents", SERVICES),
    ("INSERT", "operator_actions", (OPERATOR,)),
    ("INSERT, UPDATE", "trading_controls", (OPERATOR,)),
    ("INSERT, UPDATE", "account_limits", (OPERATOR,)),
    ("UPDATE (window_started_at, window_count)", "account_limits", (SUBMITTER,)),
    ("INSERT, UPDATE", "broker_cursors", (GATEWAY,)),
    ("INSERT, UPDATE", "broker_breakers", (SUBMITTER,)),
    ("INSERT, UPDATE", "outbox_audit", (RECONCILER,)),
    ("SELECT", "outbox_events_default", (RECONCILER,)),  # to tell that a day's partition was missing
    ("SELECT", "outbox_events", (DEBEZIUM,)),
    ("SELECT, INSERT, DELETE", "debezium_heartbeat", (DEBEZIUM,)),
)
FUNCTIONS = ("closeflow_ensure_outbox_partitions(integer)", "closeflow_drop_outbox_partition(date)")


def create_role(role: str, options: str) -> str:
    """Tolerates another database of the cluster doing the same at the same moment."""
    return f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                CREATE ROLE {role} {options};
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
    """


def upgrade() -> None:
    for role in SERVICES:
        op.execute(create_role(role, "LOGIN NOINHERIT"))
    op.execute(create_role(DEBEZIUM, "LOGIN NOINHERIT REPLICATION"))
    everyone = ", ".join((*SERVICES, DEBEZIUM))
    op.execute(f"GRANT USAGE ON SCHEMA public TO {everyone}")
    op.execute(f"GRANT SELECT ON {', '.join(READ_BY_ALL)} TO {', '.join(READERS)}")
    op.execute(f"GRANT SELECT ON {', '.join(READ_BY_GATEWAY.split())} TO {GATEWAY}")
    for privileges, table, roles in GRANTS:
        op.execute(f"GRANT {privileges} ON {table} TO {', '.join(roles)}")
    # An import may bring its own ids; those the database gives out afterwards must lie above them.
    op.execute(f"GRANT USAGE, UPDATE ON SEQUENCE positions_id_seq TO {OPERATOR}")
    for function in FUNCTIONS:
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {RECONCILER}, {OPERATOR}")


def downgrade() -> None:
    everyone = ", ".join((*SERVICES, DEBEZIUM))
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {everyone}")
    op.execute(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {everyone}")
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM {everyone}")
    op.execute(f"REVOKE ALL ON SCHEMA public FROM {everyone}")
