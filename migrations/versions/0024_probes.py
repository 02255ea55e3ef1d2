"""Which sends were probes of an open circuit breaker: a refused one costs its close no retry."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE order_sends ADD COLUMN probe boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE order_sends DROP COLUMN probe")
