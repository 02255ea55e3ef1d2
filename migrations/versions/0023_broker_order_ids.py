"""A broker's order ids are its own: unique per account, which has one broker, and not over all of them."""

from alembic import op
from sqlalchemy import text

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

PER_ACCOUNT = ("orders_account_id_broker_order_id_key", "account_id, broker_order_id")
OVER_ALL = ("orders_broker_order_id_key", "broker_order_id")
UNFINISHED = text("SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def _replace(index: tuple[str, str], old: tuple[str, str]) -> None:
    """Beside the writers of orders. What was done before a lock was not to be had stays done, and one is always whole."""
    name, columns = index
    with op.get_context().autocommit_block():
        if op.get_bind().execute(UNFINISHED, {"name": name}).first() is not None:
            op.execute(f"DROP INDEX CONCURRENTLY {name}")
        op.execute(
            f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {name} ON orders ({columns})"
            " WHERE broker_order_id IS NOT NULL"
        )
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {old[0]}")


def upgrade() -> None:
    _replace(PER_ACCOUNT, OVER_ALL)


def downgrade() -> None:
    _replace(OVER_ALL, PER_ACCOUNT)
