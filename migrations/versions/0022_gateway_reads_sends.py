"""The gateway reads which orders were sent: a plan that waits for its turn is nothing to ask the broker about."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT ON order_sends TO closeflow_broker_gateway")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON order_sends FROM closeflow_broker_gateway")
