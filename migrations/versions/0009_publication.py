"""What the publication audit's recovery needs: where it has read to, and a way to drop a slot that is lost for ever."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

RECONCILER = "closeflow_reconciler"
READERS = (
    "closeflow_close_api, closeflow_order_submitter, closeflow_fill_processor, closeflow_reconciler, closeflow_operator"
)

# Dropping a slot takes REPLICATION, with which every slot of the server could be dropped. The reconciler may drop one
# that nobody can ever read from again, of this database, and nothing else.
DROP_LOST_SLOT = """
    CREATE FUNCTION closeflow_drop_lost_slot(dropped name) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    DECLARE
        state record;
    BEGIN
        SELECT active, wal_status, invalidation_reason INTO state FROM pg_replication_slots
            WHERE slot_name = dropped AND slot_type = 'logical' AND database = current_database();
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        IF state.wal_status <> 'lost' AND state.invalidation_reason IS NULL THEN
            RAISE EXCEPTION 'slot % can still be read from (%)', dropped, state.wal_status
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        PERFORM pg_drop_replication_slot(dropped);
        RETURN true;
    END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE outbox_audit_positions (
            topic text NOT NULL,
            partition integer NOT NULL,
            "offset" bigint NOT NULL,
            PRIMARY KEY (topic, partition)
        )
    """)
    op.execute(f"GRANT SELECT ON outbox_audit_positions TO {READERS}")
    op.execute(f"GRANT INSERT, UPDATE ON outbox_audit_positions TO {RECONCILER}")
    # What it does to connector and slot is kept where a person's actions are.
    op.execute(f"GRANT INSERT ON operator_actions TO {RECONCILER}")
    op.execute(DROP_LOST_SLOT)
    op.execute("REVOKE EXECUTE ON FUNCTION closeflow_drop_lost_slot(name) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION closeflow_drop_lost_slot(name) TO {RECONCILER}")


def downgrade() -> None:
    op.execute("DROP FUNCTION closeflow_drop_lost_slot(name)")
    op.execute(f"REVOKE INSERT ON operator_actions FROM {RECONCILER}")
    op.execute("DROP TABLE outbox_audit_positions")
