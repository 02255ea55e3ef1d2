"""Trades of which it is not clear yet whether another feed told them before (ADR 0018).

Rows stay: one that was booked or became an alias since is found by its id in executions or execution_aliases.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE withheld_executions (
            broker text NOT NULL,
            account_id text NOT NULL,
            exec_id text NOT NULL,
            client_order_id text NOT NULL REFERENCES orders (client_order_id),
            side text NOT NULL CHECK (side IN ('buy', 'sell')),
            quantity numeric NOT NULL CHECK (quantity > 0),
            price numeric NOT NULL CHECK (price >= 0),
            cum_qty numeric CHECK (cum_qty >= 0),
            broker_seq bigint,
            occurred_at timestamptz NOT NULL,
            source text NOT NULL CHECK (source IN ('stream', 'backfill', 'submit', 'query', 'operator')),
            recorded_at timestamptz NOT NULL DEFAULT closeflow_now(),
            PRIMARY KEY (broker, account_id, exec_id)
        )
    """)
    op.execute("CREATE INDEX withheld_executions_client_order_id_idx ON withheld_executions (client_order_id)")
    op.execute("""
        GRANT SELECT ON withheld_executions
        TO closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler,
           closeflow_operator
    """)
    op.execute("GRANT INSERT ON withheld_executions TO closeflow_fill_processor")
    # What an operator names makes clear what a feed told.
    op.execute("GRANT INSERT ON execution_aliases TO closeflow_operator")


def downgrade() -> None:
    op.execute("REVOKE INSERT ON execution_aliases FROM closeflow_operator")
    op.execute("DROP TABLE withheld_executions")
