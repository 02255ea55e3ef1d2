"""Orders, what was sent for them, what the broker stated, and what it executed."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


STATEMENTS = (
    """
        CREATE TABLE orders (
            client_order_id text PRIMARY KEY,
            close_request_id uuid NOT NULL REFERENCES close_requests (id),
            attempt integer NOT NULL CHECK (attempt >= 1),
            position_id bigint NOT NULL REFERENCES positions (id),
            account_id text NOT NULL,
            symbol text NOT NULL,
            side text NOT NULL CHECK (side IN ('buy', 'sell')),
            quantity numeric NOT NULL CHECK (quantity > 0),
            order_type text NOT NULL CHECK (order_type IN ('limit', 'market')),
            limit_price numeric CHECK (limit_price > 0),
            time_in_force text NOT NULL CHECK (time_in_force IN ('day', 'gtc', 'ioc')),
            quote jsonb,
            status text NOT NULL DEFAULT 'planned'
                CHECK (status IN ('planned', 'denied', 'submit_unknown', 'lost', 'new', 'partially_filled', 'filled',
                                  'pending_cancel', 'canceled', 'expired', 'rejected', 'suspended', 'done_for_day')),
            broker_order_id text,
            executed_qty numeric NOT NULL DEFAULT 0 CHECK (executed_qty >= 0),
            stated_cum_qty numeric NOT NULL DEFAULT 0 CHECK (stated_cum_qty >= 0),
            avg_price numeric,
            overfill_qty numeric NOT NULL DEFAULT 0 CHECK (overfill_qty >= 0),
            broker_update_seq bigint,
            last_broker_update_at timestamptz,
            reconcile_not_found_count integer NOT NULL DEFAULT 0 CHECK (reconcile_not_found_count >= 0),
            next_send_at timestamptz,
            cancel_requested_at timestamptz,
            reject_code text,
            reject_class text CHECK (reject_class IN ('retryable', 'terminal')),
            created_at timestamptz NOT NULL DEFAULT closeflow_now(),
            updated_at timestamptz NOT NULL DEFAULT closeflow_now(),
            UNIQUE (close_request_id, attempt),
            CONSTRAINT orders_client_order_id_check CHECK (
                client_order_id = 'cf-' || replace(close_request_id::text, '-', '') || '-' || attempt::text)
        )
    """,
    "CREATE INDEX orders_position_id_idx ON orders (position_id)",
    """
        CREATE UNIQUE INDEX orders_broker_order_id_key ON orders (broker_order_id) WHERE broker_order_id IS NOT NULL
    """,
    """
        CREATE INDEX orders_working_idx ON orders (status, client_order_id)
        WHERE status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
    """,
    """
        CREATE INDEX orders_next_send_at_idx ON orders (next_send_at) WHERE status IN ('planned', 'submit_unknown')
    """,
    # No foreign key to senders: every send of one instance would lock the same row. An unregistered sender can never be
    # confirmed as exited, which is the safe side (rule R6).
    """
        CREATE TABLE order_sends (
            client_order_id text NOT NULL REFERENCES orders (client_order_id),
            kind text NOT NULL CHECK (kind IN ('submit', 'cancel')),
            n integer NOT NULL CHECK (n >= 1),
            sender text NOT NULL,
            lease_until timestamptz NOT NULL,
            started_at timestamptz NOT NULL DEFAULT closeflow_now(),
            answered_at timestamptz,
            answer text CHECK (answer IN ('accepted', 'rejected', 'not_sent', 'not_accepted', 'unknown')),
            PRIMARY KEY (client_order_id, kind, n),
            CONSTRAINT order_sends_answered_check CHECK ((answered_at IS NULL) = (answer IS NULL))
        )
    """,
    "CREATE INDEX order_sends_lease_until_idx ON order_sends (lease_until) WHERE answered_at IS NULL",
    """
        CREATE TABLE senders (
            instance_id text PRIMARY KEY,
            host text NOT NULL,
            pid integer NOT NULL,
            started_at timestamptz NOT NULL DEFAULT closeflow_now(),
            last_seen_at timestamptz NOT NULL DEFAULT closeflow_now(),
            exited_at timestamptz
        )
    """,
    """
        CREATE TABLE order_statements (
            client_order_id text NOT NULL REFERENCES orders (client_order_id),
            kind text NOT NULL
                CHECK (kind IN ('new', 'partially_filled', 'filled', 'pending_cancel', 'canceled', 'expired', 'rejected',
                                'replaced', 'suspended', 'done_for_day', 'cancel_rejected', 'refused', 'lost')),
            broker_order_id text,
            broker_seq bigint,
            cum_qty numeric CHECK (cum_qty >= 0),
            leaves_qty numeric CHECK (leaves_qty >= 0),
            stated_at timestamptz NOT NULL,
            source text NOT NULL CHECK (source IN ('stream', 'backfill', 'submit', 'query', 'operator')),
            detail jsonb,
            PRIMARY KEY (client_order_id, kind)
        )
    """,
    """
        CREATE TABLE executions (
            broker text NOT NULL,
            account_id text NOT NULL,
            exec_id text NOT NULL,
            client_order_id text NOT NULL REFERENCES orders (client_order_id),
            position_id bigint NOT NULL REFERENCES positions (id),
            kind text NOT NULL CHECK (kind IN ('trade', 'bust', 'correct')),
            ref_exec_id text,
            side text NOT NULL CHECK (side IN ('buy', 'sell')),
            quantity numeric CHECK (quantity > 0),
            price numeric CHECK (price > 0),
            cum_qty numeric CHECK (cum_qty >= 0),
            broker_seq bigint,
            occurred_at timestamptz NOT NULL,
            source text NOT NULL CHECK (source IN ('stream', 'backfill', 'submit', 'query', 'operator')),
            recorded_at timestamptz NOT NULL DEFAULT closeflow_now(),
            PRIMARY KEY (broker, account_id, exec_id),
            CONSTRAINT executions_traded_check CHECK (kind = 'bust' OR (quantity IS NOT NULL AND price IS NOT NULL)),
            CONSTRAINT executions_ref_exec_id_check CHECK ((kind = 'trade') = (ref_exec_id IS NULL))
        )
    """,
    "CREATE INDEX executions_client_order_id_idx ON executions (client_order_id)",
    "CREATE INDEX executions_position_id_idx ON executions (position_id)",
    """
        CREATE TABLE execution_aliases (
            broker text NOT NULL,
            account_id text NOT NULL,
            alias_id text NOT NULL,
            exec_id text NOT NULL,
            PRIMARY KEY (broker, account_id, alias_id),
            FOREIGN KEY (broker, account_id, exec_id) REFERENCES executions (broker, account_id, exec_id)
        )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in ("execution_aliases", "executions", "order_statements", "senders", "order_sends", "orders"):
        op.execute(f"DROP TABLE {table}")
