"""Since when a close cannot be planned: how often it is asked about again, and when a person has to know."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

ROLES = (
    "closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler, closeflow_operator"
)


def upgrade() -> None:
    op.execute("ALTER TABLE close_requests ADD COLUMN deferred_since timestamptz")
    op.execute(f"GRANT INSERT (deferred_since), UPDATE (deferred_since) ON close_requests TO {ROLES}")


def downgrade() -> None:
    op.execute("ALTER TABLE close_requests DROP COLUMN deferred_since")
