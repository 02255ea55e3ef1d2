"""How often each of the reconciler's jobs has finished a cycle, for the other services to see one that stands still."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

RECONCILER = "closeflow_reconciler"
READERS = (
    "closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_broker_gateway, "
    "closeflow_reconciler, closeflow_operator"
)


def upgrade() -> None:
    op.execute("""
        -- allowed_s is NULL for a job that is no more.
        CREATE TABLE job_cycles (
            job text PRIMARY KEY,
            cycles bigint NOT NULL DEFAULT 0,
            allowed_s integer CONSTRAINT job_cycles_allowed_s_check CHECK (allowed_s > 0),
            finished_at timestamptz
        ) WITH (fillfactor = 50)
    """)
    op.execute(f"GRANT SELECT ON job_cycles TO {READERS}")
    op.execute(f"GRANT INSERT, UPDATE ON job_cycles TO {RECONCILER}")


def downgrade() -> None:
    op.execute("DROP TABLE job_cycles")
