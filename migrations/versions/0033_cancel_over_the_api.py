"""A caller's cancel is decided where it is asked for: close-api marks the order and records who cancelled and why.

Of an action the account and the trace are kept too: whose it was to see, and which call did it.
"""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

API = "closeflow_close_api"
RECORDED = "by, action, subject, reason, before, after, account_id, trace_id"


def upgrade() -> None:
    op.execute("ALTER TABLE operator_actions ADD COLUMN account_id text, ADD COLUMN trace_id text")
    op.execute(f"GRANT INSERT ({RECORDED}) ON operator_actions TO {API}")
    # A cancel asked for shows at once as pending_cancel (rule R2).
    op.execute(f"GRANT UPDATE (status) ON orders TO {API}")


def downgrade() -> None:
    op.execute(f"REVOKE UPDATE (status) ON orders FROM {API}")
    op.execute(f"REVOKE INSERT (by, action, subject, reason, before, after) ON operator_actions FROM {API}")
    op.execute("ALTER TABLE operator_actions DROP COLUMN account_id, DROP COLUMN trace_id")
