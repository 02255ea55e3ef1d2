"""Which dead letters an operator has handled, and who may release parked records."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OPERATOR = "closeflow_operator"
RECONCILER = "closeflow_reconciler"


def upgrade() -> None:
    # appended_at is the time that Kafka has of the letter: offsets begin again in a topic that was made anew, and a new
    # letter must not pass for an old one.
    op.execute("""
        CREATE TABLE dead_letter_actions (
            topic text NOT NULL,
            partition integer NOT NULL,
            "offset" bigint NOT NULL,
            appended_at timestamptz NOT NULL,
            action text NOT NULL CHECK (action IN ('replayed', 'discarded')),
            by text NOT NULL,
            reason text NOT NULL,
            at timestamptz NOT NULL DEFAULT closeflow_now(),
            PRIMARY KEY (topic, partition, "offset", appended_at)
        )
    """)
    op.execute(f"GRANT SELECT, INSERT ON dead_letter_actions TO {OPERATOR}")
    op.execute(f"GRANT UPDATE (released_at) ON parked_records TO {RECONCILER}")


def downgrade() -> None:
    op.execute(f"REVOKE UPDATE (released_at) ON parked_records FROM {RECONCILER}")
    op.execute("DROP TABLE dead_letter_actions")
