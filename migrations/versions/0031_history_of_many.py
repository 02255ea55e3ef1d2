"""History triggers join the old rows with the new ones by hash, whatever the session prefers for statements of few rows:
transition tables have no index, so a nested loop over two of them grows with the square of the batch.
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

FUNCTIONS = ("closeflow_position_updated", "closeflow_close_request_updated", "closeflow_order_updated")


def upgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function}() SET enable_hashjoin = on")


def downgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function}() RESET enable_hashjoin")
