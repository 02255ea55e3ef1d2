"""Take away what no service has ever used: reading tables of others' work, and a column's insert without the row's."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None
# No release reads them; the newest with this schema before it is of 0034.
contract_since = "0034"

API = "closeflow_close_api"
SUBMITTER = "closeflow_order_submitter"
FILLS = "closeflow_fill_processor"
RECONCILER = "closeflow_reconciler"
OPERATOR = "closeflow_operator"

NOT_READ = {
    API: "broker_cursors, non_trade_activities, outbox_audit_positions, outbox_status, retention_horizons",
    SUBMITTER: (
        "broker_cursors, debezium_heartbeat, non_trade_activities, operator_actions, outbox_audit, "
        "outbox_audit_positions, outbox_status, retention_horizons, status_history"
    ),
    FILLS: (
        "broker_cursors, debezium_heartbeat, non_trade_activities, operator_actions, outbox_audit, "
        "outbox_audit_positions, outbox_status, retention_horizons, status_history"
    ),
    RECONCILER: "outbox_status, retention_horizons",
}
NOT_INSERTED_BY = f"{SUBMITTER}, {FILLS}, {RECONCILER}"
FUNCTIONS = "closeflow_history(), closeflow_is_settled(text)"
"""They read what only these roles may read."""
SETTLED_FOR = f"{API}, {SUBMITTER}, {FILLS}, {RECONCILER}, {OPERATOR}"


def upgrade() -> None:
    for role, tables in NOT_READ.items():
        op.execute(f"REVOKE SELECT ON {tables} FROM {role}")
    op.execute(f"REVOKE INSERT (deferred_since) ON close_requests FROM {NOT_INSERTED_BY}")
    op.execute(f"REVOKE EXECUTE ON FUNCTION {FUNCTIONS} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {FUNCTIONS} TO {SETTLED_FOR}")


def downgrade() -> None:
    op.execute(f"REVOKE EXECUTE ON FUNCTION {FUNCTIONS} FROM {SETTLED_FOR}")
    op.execute(f"GRANT EXECUTE ON FUNCTION {FUNCTIONS} TO PUBLIC")
    op.execute(f"GRANT INSERT (deferred_since) ON close_requests TO {NOT_INSERTED_BY}")
    for role, tables in NOT_READ.items():
        op.execute(f"GRANT SELECT ON {tables} TO {role}")
