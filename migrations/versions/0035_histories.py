"""Which history of the database the orders of an account were last compared with: a promoted or restored database has
another one, and may have lost what the broker was told (ADR 0033)."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

RECONCILER = "closeflow_reconciler"
READERS = (
    "closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler, closeflow_operator"
)

# The server's identity and its timeline: a copy in another cluster has another identity, a promotion and a recovery
# begin a new timeline. On a standby it is unknown, and nothing is written there.
HISTORY = """
    CREATE FUNCTION closeflow_history() RETURNS text LANGUAGE sql STABLE AS $$
        SELECT CASE WHEN NOT pg_is_in_recovery() THEN
            system_identifier || '/'
            || CAST(CAST('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS bit(32)) AS integer)
        END FROM pg_control_system()
    $$
"""
# An account that no reconciler has looked after yet has no row, and nothing to compare.
SETTLED = """
    CREATE FUNCTION closeflow_is_settled(account text) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT NOT EXISTS (SELECT FROM account_histories h
                           WHERE h.account_id = account AND h.history <> closeflow_history())
    $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE account_histories (
            account_id text NOT NULL PRIMARY KEY REFERENCES accounts (account_id),
            history text NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT closeflow_now()
        )
    """)
    op.execute(HISTORY)
    op.execute(SETTLED)
    op.execute(f"GRANT SELECT ON account_histories TO {READERS}")
    op.execute(f"GRANT INSERT, UPDATE ON account_histories TO {RECONCILER}")


def downgrade() -> None:
    op.execute("DROP FUNCTION closeflow_is_settled(text)")
    op.execute("DROP FUNCTION closeflow_history()")
    op.execute("DROP TABLE account_histories")
