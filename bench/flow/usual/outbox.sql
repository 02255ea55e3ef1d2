-- The columns that Debezium's outbox router looks for when nobody tells it otherwise.
CREATE TABLE outbox_events (
    id uuid PRIMARY KEY,
    aggregatetype text NOT NULL,
    aggregateid text NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
