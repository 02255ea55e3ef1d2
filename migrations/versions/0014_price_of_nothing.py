"""An execution may be for nothing: a worthless expiry, a cabinet trade at 0."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def _replace(rule: str) -> None:
    """NOT VALID first, because reading the table to prove the rule must not happen under the lock that adds it."""
    op.execute(
        "ALTER TABLE executions DROP CONSTRAINT executions_price_check,"
        f" ADD CONSTRAINT executions_price_check CHECK ({rule}) NOT VALID"
    )


def upgrade() -> None:
    _replace("price >= 0")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE executions VALIDATE CONSTRAINT executions_price_check")


def downgrade() -> None:
    _replace("price > 0")  # Not proven: there may be one at 0 by now.
