"""The outbox, partitioned by day, and what Debezium needs: a publication and a heartbeat table."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A new day is made as a plain table and then attached: CREATE TABLE ... PARTITION OF would lock the whole outbox.
# Rows that the DEFAULT partition caught are moved into the plain table first. Neither the DELETE (the publication has
# inserts only) nor the INSERT (the table is not part of the outbox yet) is published again.
ENSURE = """
    CREATE FUNCTION closeflow_ensure_outbox_partitions(days integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '3s' AS $$
    DECLARE
        today date := (closeflow_now() AT TIME ZONE 'UTC')::date;
        wanted date;
        part text;
        made integer := 0;
    BEGIN
        IF days IS NULL OR days < 0 OR days > 366 THEN
            RAISE EXCEPTION 'days must be between 0 and 366, not %', days USING ERRCODE = 'invalid_parameter_value';
        END IF;
        PERFORM pg_advisory_xact_lock(hashtext('closeflow_outbox_partitions'));
        IF to_regclass('public.outbox_events_default') IS NULL THEN
            CREATE TABLE public.outbox_events_default PARTITION OF public.outbox_events DEFAULT;
        END IF;
        FOR wanted IN
            SELECT today + n FROM generate_series(0, days) AS n
            UNION SELECT created_on FROM public.outbox_events_default
            ORDER BY 1
        LOOP
            part := 'outbox_events_p' || to_char(wanted, 'YYYYMMDD');
            CONTINUE WHEN to_regclass('public.' || part) IS NOT NULL;
            EXECUTE format('CREATE TABLE public.%I (LIKE public.outbox_events INCLUDING ALL)', part);
            IF EXISTS (SELECT FROM public.outbox_events_default WHERE created_on = wanted) THEN
                LOCK TABLE public.outbox_events_default IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('WITH caught AS (DELETE FROM public.outbox_events_default WHERE created_on = %L RETURNING *)
                                INSERT INTO public.%I SELECT * FROM caught', wanted, part);
            END IF;
            EXECUTE format('ALTER TABLE public.outbox_events ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                           part, wanted, wanted + 1);
            made := made + 1;
        END LOOP;
        RETURN made;
    END $$
"""


def upgrade() -> None:
    # occurred_at becomes the header ce_time: Debezium writes a timestamptz as RFC 3339 in UTC, and a timestamp as a number. It
    # is not the time of the Kafka record, so that an old row emitted again is not deleted at once by the topic's retention.
    # specversion becomes ce_specversion: a column, because InsertHeader turns the literal 1.0 into the number 1.
    op.execute("""
        CREATE TABLE outbox_events (
            created_on date NOT NULL DEFAULT (closeflow_now() AT TIME ZONE 'UTC')::date,
            id uuid NOT NULL,
            emission integer NOT NULL DEFAULT 1 CHECK (emission >= 1),
            topic text NOT NULL,
            key text NOT NULL,
            event_type text NOT NULL,
            schema_version text NOT NULL
                CHECK (schema_version ~ '^(urn:closeflow:)?[a-z][a-z-]*\\.v[0-9]+$'),
            payload jsonb NOT NULL,
            traceparent text,
            occurred_at timestamptz NOT NULL DEFAULT closeflow_now(),
            close_request_id uuid,
            attempt integer,
            position_id bigint,
            position_version bigint,
            xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
            specversion text NOT NULL DEFAULT '1.0',
            PRIMARY KEY (created_on, id, emission)
        ) PARTITION BY RANGE (created_on)
    """)
    op.execute("CREATE INDEX outbox_events_close_request_id_idx ON outbox_events (close_request_id)")
    op.execute("CREATE INDEX outbox_events_position_id_idx ON outbox_events (position_id)")
    op.execute("CREATE INDEX outbox_events_xact_id_idx ON outbox_events (xact_id)")
    op.execute(ENSURE)
    op.execute("REVOKE EXECUTE ON FUNCTION closeflow_ensure_outbox_partitions(integer) FROM PUBLIC")
    op.execute("SELECT closeflow_ensure_outbox_partitions(7)")
    op.execute("""
        CREATE TABLE debezium_heartbeat (
            id integer PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT closeflow_now()
        )
    """)
    op.execute("""
        CREATE PUBLICATION closeflow_outbox FOR TABLE outbox_events, debezium_heartbeat
        WITH (publish = 'insert', publish_via_partition_root = true)
    """)


def downgrade() -> None:
    op.execute("DROP PUBLICATION closeflow_outbox")
    op.execute("DROP TABLE debezium_heartbeat")
    op.execute("DROP FUNCTION closeflow_ensure_outbox_partitions(integer)")
    op.execute("DROP TABLE outbox_events")
