-- The tables of the alternatives: what each needs to close a position once, with the constraints that hold it.
CREATE TABLE positions (
    id bigint PRIMARY KEY,
    account_id text NOT NULL,
    symbol text NOT NULL,
    quantity numeric NOT NULL,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closing', 'closed')),
    version bigint NOT NULL DEFAULT 1,
    closed_at timestamptz,
    CHECK (status <> 'closed' OR (quantity = 0 AND closed_at IS NOT NULL))
);
CREATE TABLE close_requests (
    id text PRIMARY KEY,
    position_id bigint NOT NULL REFERENCES positions,
    idempotency_key text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    symbol text NOT NULL,
    side text NOT NULL,
    target_qty numeric NOT NULL,
    filled_qty numeric NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    UNIQUE (position_id, idempotency_key)
);
CREATE TABLE orders (
    client_order_id text PRIMARY KEY,
    close_request_id text NOT NULL UNIQUE REFERENCES close_requests,
    broker_order_id text,
    status text NOT NULL DEFAULT 'created',
    side text NOT NULL,
    quantity numeric NOT NULL,
    filled_qty numeric NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE TABLE executions (
    id text PRIMARY KEY,
    client_order_id text NOT NULL REFERENCES orders,
    quantity numeric NOT NULL,
    price numeric NOT NULL,
    executed_at timestamptz NOT NULL
);
