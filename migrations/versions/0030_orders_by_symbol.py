"""The orders of a symbol since a time are read by them, whatever the symbol's history."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

INDEX = "orders_account_id_symbol_created_at_idx"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")  # One that was not finished is there, and invalid.
        op.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON orders (account_id, symbol, created_at)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
