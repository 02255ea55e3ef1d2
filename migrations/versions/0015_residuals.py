"""A closed position may keep less than can be traded: a fill with more digits than an order may have leaves it.

The new check allows what the old one did, so no row can break it.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def _closed(quantity: str, proven: str = "") -> None:
    op.execute("ALTER TABLE positions DROP CONSTRAINT positions_closed_check")
    op.execute(f"""
        ALTER TABLE positions ADD CONSTRAINT positions_closed_check
            CHECK (status <> 'closed' OR ({quantity} AND closed_at IS NOT NULL)) {proven}
    """)


def upgrade() -> None:
    _closed("abs(quantity) < CASE asset_type WHEN 'option' THEN 1 ELSE 0.000000001 END", "NOT VALID")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE positions VALIDATE CONSTRAINT positions_closed_check")


def downgrade() -> None:
    """Refused while a closed position has a residual."""
    _closed("quantity = 0")
