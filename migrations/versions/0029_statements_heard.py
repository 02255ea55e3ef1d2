"""When a broker's statement was heard, by the database: what the database's own times are compared with (ADR 0019).

Empty where it was heard before this migration; then it counts as heard when it was stated.
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE order_statements ADD COLUMN heard_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE order_statements DROP COLUMN heard_at")
