"""The reconciler counts the dead letters that wait: it has to know which were replayed or discarded."""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT ON dead_letter_actions TO closeflow_reconciler")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON dead_letter_actions FROM closeflow_reconciler")
