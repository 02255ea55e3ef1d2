"""Why its caller asked for a close, in the caller's words; never changed, as the rest of what was asked for."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE close_requests ADD COLUMN requested_reason text")
    op.execute("GRANT INSERT (requested_reason) ON close_requests TO closeflow_close_api, closeflow_operator")


def downgrade() -> None:
    op.execute("ALTER TABLE close_requests DROP COLUMN requested_reason")
