"""The last record that the publication audit read of each partition, by which it notices that Kafka lost it."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE outbox_audit_positions ADD COLUMN read_up_to bigint, ADD COLUMN last_ms bigint")


def downgrade() -> None:
    op.execute("ALTER TABLE outbox_audit_positions DROP COLUMN read_up_to, DROP COLUMN last_ms")
