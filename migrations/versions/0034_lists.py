"""A page of a list is a range of one index, whichever of account, status and symbol it is of."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

INDEXES = {
    "close_requests_status_account_id_id_idx": "close_requests (status, account_id, id)",
    "positions_status_account_id_id_idx": "positions (status, account_id, id)",
    "positions_symbol_status_account_id_id_idx": "positions (symbol, status, account_id, id)",
    "operator_actions_account_id_id_idx": "operator_actions (account_id, id)",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, of in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # One that was not finished is there, and invalid.
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {of}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
