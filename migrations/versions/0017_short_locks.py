"""Outbox partitions come and go without anybody waiting: locks that stop writers are waited for briefly, and often."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# DETACH ... CONCURRENTLY is not to be had beside a DEFAULT partition. Whoever waits for ACCESS EXCLUSIVE makes everybody
# wait who comes after: so it is asked for only when no transaction is seen twice to be in the way, a reader's that stays
# open for one (pg_dump, a report), and then not for longer than a writer's transaction takes. The caller tries again.
DROP_DAY = """
    CREATE OR REPLACE FUNCTION closeflow_drop_outbox_partition(dropped date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '{wait}' AS $$
    DECLARE
        part text := 'outbox_events_p' || to_char(dropped, 'YYYYMMDD');
        known xid8;
        unproven boolean;
        busy text[];
    BEGIN
        IF dropped >= (closeflow_now() AT TIME ZONE 'UTC')::date THEN
            RAISE EXCEPTION 'the outbox of % is still written', dropped USING ERRCODE = 'object_in_use';
        END IF;
        PERFORM pg_advisory_xact_lock(hashtext('closeflow_outbox_partitions'));
        IF to_regclass('public.' || part) IS NULL THEN
            RETURN false;
        END IF;
        -- Once before the lock, so that a day which is kept locks out nobody, and once under it, where nothing is added.
        FOR look IN 1..2 LOOP
            IF look = 2 THEN
                {lock}
            END IF;
            SELECT a.audited_through INTO known FROM public.outbox_audit a
                WHERE a.day = dropped AND a.missing = '[]'::jsonb;
            EXECUTE format('SELECT EXISTS (SELECT FROM public.%I WHERE xact_id >= $1)', part)
                INTO unproven USING COALESCE(known, '0'::xid8);
            IF unproven THEN
                RAISE EXCEPTION 'the audit does not yet know every event of % to be published', dropped
                    USING ERRCODE = 'object_not_in_prerequisite_state';
            END IF;
        END LOOP;
        EXECUTE format('DROP TABLE public.%I', part);
        RETURN true;
    END $$
"""
HOLDERS = """
    SELECT array_agg(DISTINCT l.virtualtransaction) FROM pg_locks l
    WHERE l.granted AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.relation IN ('public.outbox_events'::regclass, to_regclass('public.' || part))
"""
LOCK = f"""
                busy := ({HOLDERS});
                PERFORM pg_sleep(0.05);
                IF busy && ({HOLDERS}) THEN
                    RAISE EXCEPTION 'a transaction that stays open reads the outbox or its day %', dropped
                        USING ERRCODE = 'lock_not_available';
                END IF;
                LOCK TABLE ONLY public.outbox_events IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('LOCK TABLE ONLY public.%I IN ACCESS EXCLUSIVE MODE NOWAIT', part);
"""
LOCK_BEFORE = """
                EXECUTE format('LOCK TABLE ONLY public.outbox_events, ONLY public.%I IN ACCESS EXCLUSIVE MODE', part);
"""


def upgrade() -> None:
    op.execute(DROP_DAY.format(wait="50ms", lock=LOCK))
    # It attaches days beside the DEFAULT partition, which is locked for that.
    op.execute("ALTER FUNCTION closeflow_ensure_outbox_partitions(integer) SET lock_timeout = '50ms'")


def downgrade() -> None:
    op.execute(DROP_DAY.format(wait="3s", lock=LOCK_BEFORE))
    op.execute("ALTER FUNCTION closeflow_ensure_outbox_partitions(integer) SET lock_timeout = '3s'")
