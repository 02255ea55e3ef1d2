"""The database's clock tells the time of the statement, not of its transaction (ADR 0012).

What waited for a row's lock and then decided has a time after whatever it waited for, so times of one row follow each
other as the decisions did.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not clock_timestamp(): the rows of one statement carry one time, and the planner may use an index on it.
    op.execute("""
        CREATE OR REPLACE FUNCTION closeflow_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
        RETURN statement_timestamp()
            + COALESCE(NULLIF(current_setting('closeflow.clock_shift', true), ''), '0')::interval
    """)


def downgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION closeflow_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
        RETURN now() + COALESCE(NULLIF(current_setting('closeflow.clock_shift', true), ''), '0')::interval
    """)
