"""A broker's order ids are its own: unique per account, which has one broker, and not over all of them."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

WHERE = "WHERE broker_order_id IS NOT NULL"


def upgrade() -> None:
    # Not concurrently: that waits for every other session's snapshot, a second migrator's too, which waits for this.
    op.execute(f"CREATE UNIQUE INDEX orders_account_id_broker_order_id_key ON orders (account_id, broker_order_id) {WHERE}")
    op.execute("DROP INDEX orders_broker_order_id_key")


def downgrade() -> None:
    op.execute(f"CREATE UNIQUE INDEX orders_broker_order_id_key ON orders (broker_order_id) {WHERE}")
    op.execute("DROP INDEX orders_account_id_broker_order_id_key")
