"""Close requests: at most one unfinished per position, one per idempotency key."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE close_requests (
            id uuid PRIMARY KEY,
            position_id bigint NOT NULL REFERENCES positions (id),
            account_id text NOT NULL,
            idempotency_key text NOT NULL,
            fingerprint text NOT NULL,
            requested_by text NOT NULL,
            status text NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'submitted', 'completed', 'retryable', 'failed')),
            reason text,
            symbol text NOT NULL,
            side text NOT NULL CHECK (side IN ('buy', 'sell')),
            asset_type text NOT NULL CHECK (asset_type IN ('stock', 'option', 'crypto')),
            target_qty numeric NOT NULL CHECK (target_qty > 0),
            filled_qty numeric NOT NULL DEFAULT 0 CHECK (filled_qty >= 0),
            remaining_qty numeric GENERATED ALWAYS AS (GREATEST(target_qty - filled_qty, 0)) STORED,
            attempt integer NOT NULL DEFAULT 1 CHECK (attempt >= 1),
            retry_count integer NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
            max_retries integer NOT NULL DEFAULT 3 CHECK (max_retries >= 0),
            order_type text NOT NULL DEFAULT 'limit' CHECK (order_type IN ('limit', 'market')),
            limit_price numeric CHECK (limit_price > 0),
            max_slippage_bps integer CHECK (max_slippage_bps >= 0),
            time_in_force text NOT NULL CHECK (time_in_force IN ('day', 'gtc', 'ioc')),
            working_timeout_s integer NOT NULL DEFAULT 60 CHECK (working_timeout_s > 0),
            deadline_at timestamptz,
            next_attempt_at timestamptz,
            emission integer NOT NULL DEFAULT 1 CHECK (emission >= 1),
            auto_retry boolean NOT NULL DEFAULT true,
            frozen_reason text,
            xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
            cancel_requested_at timestamptz,
            traceparent text,
            created_at timestamptz NOT NULL DEFAULT closeflow_now(),
            submitted_at timestamptz,
            completed_at timestamptz,
            updated_at timestamptz NOT NULL DEFAULT closeflow_now(),
            UNIQUE (position_id, idempotency_key)
        )
    """)
    unfinished = "WHERE status IN ('pending', 'submitted', 'retryable')"
    op.execute(f"CREATE UNIQUE INDEX close_requests_active_key ON close_requests (position_id) {unfinished}")
    op.execute(f"CREATE INDEX close_requests_unfinished_idx ON close_requests (status, id) {unfinished}")
    op.execute(f"CREATE INDEX close_requests_next_attempt_at_idx ON close_requests (next_attempt_at) {unfinished}")
    op.execute("CREATE INDEX close_requests_account_id_id_idx ON close_requests (account_id, id)")


def downgrade() -> None:
    op.execute("DROP TABLE close_requests")
