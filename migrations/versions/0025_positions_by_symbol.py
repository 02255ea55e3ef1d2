"""What an account holds is read symbol by symbol, however many positions it ever had."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

INDEXES = {
    "positions_account_id_symbol_updated_at_idx": "positions (account_id, symbol, updated_at)",
    "positions_held_idx": "positions (account_id, symbol) WHERE quantity <> 0",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # One that was not finished is there, and invalid.
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
