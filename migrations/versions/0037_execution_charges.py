"""Commission and fees of executions, as facts of their own: a broker states some of them days after the trade."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # exec_id has no foreign key: a charge may be known before its execution, and by the execution's other name.
    op.execute("""
        CREATE TABLE execution_charges (
            broker text NOT NULL,
            account_id text NOT NULL,
            charge_id text NOT NULL,
            exec_id text NOT NULL,
            client_order_id text NOT NULL REFERENCES orders (client_order_id),
            commission numeric NOT NULL,
            fees numeric NOT NULL,
            currency text,
            occurred_at timestamptz NOT NULL,
            source text NOT NULL CHECK (source IN ('stream', 'backfill', 'submit', 'query', 'operator')),
            recorded_at timestamptz NOT NULL DEFAULT closeflow_now(),
            PRIMARY KEY (broker, account_id, charge_id)
        )
    """)
    op.execute("CREATE INDEX execution_charges_client_order_id_idx ON execution_charges (client_order_id)")
    op.execute("""
        GRANT SELECT ON execution_charges
        TO closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler,
           closeflow_operator
    """)
    op.execute("GRANT INSERT ON execution_charges TO closeflow_fill_processor")


def downgrade() -> None:
    op.execute("DROP TABLE execution_charges")
