"""What an account holds is read symbol by symbol, however many positions it ever had."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX positions_account_id_symbol_updated_at_idx ON positions (account_id, symbol, updated_at)")
    op.execute("CREATE INDEX positions_held_idx ON positions (account_id, symbol) WHERE quantity <> 0")


def downgrade() -> None:
    op.execute("DROP INDEX positions_held_idx")
    op.execute("DROP INDEX positions_account_id_symbol_updated_at_idx")
