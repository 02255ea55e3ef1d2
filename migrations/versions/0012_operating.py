"""What operators did, by what they did it to: `closectl actions list --subject`."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX operator_actions_subject_id_idx ON operator_actions (subject, id)")


def downgrade() -> None:
    op.execute("DROP INDEX operator_actions_subject_id_idx")
