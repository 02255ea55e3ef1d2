"""Indexes for what the reconciler looks for again and again among rows that are nearly all in order."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE INDEX positions_closing_idx ON positions (id)
        WHERE status IN ('closing', 'close_retryable') OR active_close_request_id IS NOT NULL
    """)
    op.execute("CREATE INDEX orders_gap_idx ON orders (client_order_id) WHERE stated_cum_qty > executed_qty")


def downgrade() -> None:
    op.execute("DROP INDEX orders_gap_idx")
    op.execute("DROP INDEX positions_closing_idx")
