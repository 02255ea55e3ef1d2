"""Kill switch, account limits and the circuit breaker's counters.

The global switch is there from the start, because a switch that cannot be read is a halt. Every account has limits from
its first moment: a trigger makes the row with finite defaults, which an operator changes.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

DEFAULTS = {"max_order_qty": "1000000", "max_order_notional": "100000000", "submits_per_minute": "6000"}


def upgrade() -> None:
    op.execute("""
        INSERT INTO trading_controls (scope, state, reason, by) VALUES ('global', 'active', 'installed', 'migration')
        ON CONFLICT DO NOTHING
    """)
    for column, value in DEFAULTS.items():
        op.execute(f"ALTER TABLE account_limits ALTER COLUMN {column} SET DEFAULT {value}")
    # SECURITY DEFINER: whoever may add an account need not be one who may set limits.
    op.execute("""
        CREATE FUNCTION closeflow_account_inserted() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$ BEGIN
            INSERT INTO public.account_limits (account_id) SELECT account_id FROM new_rows ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$
    """)
    op.execute("REVOKE EXECUTE ON FUNCTION closeflow_account_inserted() FROM PUBLIC")
    op.execute("""
        CREATE TRIGGER accounts_limited AFTER INSERT ON accounts
        REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION closeflow_account_inserted()
    """)
    op.execute("INSERT INTO account_limits (account_id) SELECT account_id FROM accounts ON CONFLICT DO NOTHING")
    op.execute("ALTER TABLE broker_breakers ADD refusals integer NOT NULL DEFAULT 0 CHECK (refusals >= 0)")


def downgrade() -> None:
    op.execute("ALTER TABLE broker_breakers DROP refusals")
    op.execute("DROP TRIGGER accounts_limited ON accounts")
    op.execute("DROP FUNCTION closeflow_account_inserted()")
    for column in DEFAULTS:
        op.execute(f"ALTER TABLE account_limits ALTER COLUMN {column} DROP DEFAULT")
