"""What is over is dropped in batches: receipts, status history, parked records, closed incidents; and from when on each
of them is whole, for whoever reads them as evidence."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

RECONCILER, OPERATOR = "closeflow_reconciler", "closeflow_operator"
READERS = (
    "closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler, closeflow_operator"
)
INDEXES = {
    "inbox_received_at_idx": "inbox (received_at)",
    "parked_records_parked_at_idx": "parked_records (parked_at)",
    "incidents_closed_at_idx": "incidents (closed_at) WHERE closed_at IS NOT NULL",
}
# The guard is here and not in a service. A receipt must outlive the record (30 days in broker-fill) and the longest time
# after which one may be replayed (90 days in its dead letter topic). Rows that somebody has locked wait for the next
# batch, so that nobody waits in a circle. The history is in the order of its ids, but for clocks that were set back.
DROP = """
    CREATE FUNCTION closeflow_drop_expired(kept_in text, before timestamptz, batch integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '50ms' AS $$
    DECLARE
        kept interval := CASE kept_in WHEN 'inbox' THEN interval '121 days' ELSE interval '31 days' END;
        dropped integer;
    BEGIN
        IF before > closeflow_now() - kept OR before IS NULL THEN
            RAISE EXCEPTION '% keeps its rows for at least %', kept_in, kept USING ERRCODE = 'invalid_parameter_value';
        END IF;
        INSERT INTO public.retention_horizons AS h (kept_in, since) VALUES (kept_in, before)
            ON CONFLICT ON CONSTRAINT retention_horizons_pkey DO UPDATE SET since = EXCLUDED.since WHERE h.since < EXCLUDED.since;
        CASE kept_in
            WHEN 'inbox' THEN
                DELETE FROM public.inbox i USING (
                    SELECT consumer, event_id FROM public.inbox WHERE received_at < before
                    ORDER BY received_at LIMIT batch FOR UPDATE SKIP LOCKED) d
                WHERE (i.consumer, i.event_id) = (d.consumer, d.event_id);
            WHEN 'status_history' THEN
                DELETE FROM public.status_history WHERE id IN (
                    SELECT id FROM (SELECT id, at FROM public.status_history ORDER BY id LIMIT batch) h
                    WHERE h.at < before);
            WHEN 'parked_records' THEN
                DELETE FROM public.parked_records p USING (
                    SELECT topic, partition, "offset" FROM public.parked_records
                    WHERE parked_at < before AND (released_at < before OR reason = 'foreign_order')
                    ORDER BY parked_at LIMIT batch FOR UPDATE SKIP LOCKED) d
                WHERE (p.topic, p.partition, p."offset") = (d.topic, d.partition, d."offset");
            WHEN 'incidents' THEN
                DELETE FROM public.incidents WHERE id IN (
                    SELECT id FROM public.incidents WHERE closed_at < before
                    ORDER BY closed_at LIMIT batch FOR UPDATE SKIP LOCKED);
            ELSE
                RAISE EXCEPTION 'nothing of % expires', kept_in USING ERRCODE = 'invalid_parameter_value';
        END CASE;
        GET DIAGNOSTICS dropped = ROW_COUNT;
        RETURN dropped;
    END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE retention_horizons (
            kept_in text PRIMARY KEY,
            since timestamptz NOT NULL
        )
    """)
    op.execute(f"GRANT SELECT ON retention_horizons TO {READERS}")
    op.execute(DROP)
    op.execute("REVOKE EXECUTE ON FUNCTION closeflow_drop_expired(text, timestamptz, integer) FROM PUBLIC")
    op.execute(
        "GRANT EXECUTE ON FUNCTION closeflow_drop_expired(text, timestamptz, integer)"
        f" TO {RECONCILER}, {OPERATOR}"
    )
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX IF EXISTS {name}")  # One that was not finished is there, and invalid.
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute("DROP FUNCTION closeflow_drop_expired(text, timestamptz, integer)")
    op.execute("DROP TABLE retention_horizons")
