"""A send says that its first byte may go from now on; a claim that never said so is known to have written nothing.

Claims that are there, and those of order-submitters of before this, get the column's default: they may have written.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE order_sends ADD COLUMN begun_at timestamptz DEFAULT closeflow_now()")


def downgrade() -> None:
    op.execute("ALTER TABLE order_sends DROP COLUMN begun_at")
