"""One tagged position at the most for what executions brought beyond another one (P12)."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP INDEX positions_overfill_of_idx")
    op.execute("""
        CREATE UNIQUE INDEX positions_overfill_of_key ON positions (overfill_of) WHERE overfill_of IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP INDEX positions_overfill_of_key")
    op.execute("CREATE INDEX positions_overfill_of_idx ON positions (overfill_of) WHERE overfill_of IS NOT NULL")
