"""Activities of the broker that are no trades, each decided about once, by the reconciler (ADR 0023)."""

from alembic import op

revision = "0027"
down_revision = "0025"
branch_labels = None
depends_on = None

READERS = "closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler, closeflow_operator"
RECONCILER = "closeflow_reconciler"
GRANTS = (
    ("INSERT", "non_trade_activities"),
    ("INSERT", "position_adjustments"),
    ("UPDATE (quantity)", "positions"),
    ("INSERT, UPDATE", "broker_cursors"),
)


def upgrade() -> None:
    op.execute("""
        CREATE TABLE non_trade_activities (
            broker text NOT NULL,
            account_id text NOT NULL,
            activity_id text NOT NULL,
            kind text NOT NULL,
            symbol text,
            quantity numeric,
            outcome text NOT NULL CHECK (outcome IN ('ended', 'told')),
            at timestamptz NOT NULL DEFAULT closeflow_now(),
            PRIMARY KEY (broker, account_id, activity_id)
        )
    """)
    op.execute(f"GRANT SELECT ON non_trade_activities TO {READERS}")
    for privileges, table in GRANTS:
        op.execute(f"GRANT {privileges} ON {table} TO {RECONCILER}")


def downgrade() -> None:
    for privileges, table in GRANTS[1:]:
        op.execute(f"REVOKE {privileges} ON {table} FROM {RECONCILER}")
    op.execute("DROP TABLE non_trade_activities")
