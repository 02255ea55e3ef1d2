"""Where a sender runs, so that another process there can see that it is gone; and whether its orders say they close.

Senders that are there already told neither: nothing is inferred of them, and their orders may have said nothing.
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE senders ADD COLUMN runs_in text, ADD COLUMN process_started bigint,"
        " ADD COLUMN says_it_closes boolean NOT NULL DEFAULT false"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE senders DROP COLUMN runs_in, DROP COLUMN process_started, DROP COLUMN says_it_closes")
