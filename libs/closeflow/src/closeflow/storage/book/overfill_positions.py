"""The positions that hold what executions brought beyond zero (P12): one per position, tagged with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.frozen import replace
from closeflow.domain.model import Event, Position, PositionCause
from closeflow.domain.outbox.events import position_event
from closeflow.storage.book import mapping
from closeflow.storage.core.bulk import rows_json
from closeflow.storage.core.statements import Row, fetch
from closeflow.storage.schema.column_types import LOT

# Version 2, because that of a position's first event is. Its own executions stay what they are: only what it was opened
# with changes, and its quantity by as much.
_HOLD: Final = text(
    """
    INSERT INTO positions (account_id, symbol, asset_type, multiplier, currency, opening_qty, quantity, version,
                           status, closed_at, overfill_of)
    SELECT p.account_id, p.symbol, p.asset_type, p.multiplier, p.currency, r.quantity, r.quantity, 2,
           CASE WHEN abs(r.quantity) < @LOT THEN 'closed' ELSE 'open' END,
           CASE WHEN abs(r.quantity) < @LOT THEN closeflow_now() END, p.id
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id bigint, quantity numeric) JOIN positions p USING (id)
    WHERE r.quantity <> 0 OR EXISTS (SELECT FROM positions t WHERE t.overfill_of = p.id)
    ORDER BY p.id
    ON CONFLICT (overfill_of) WHERE overfill_of IS NOT NULL DO UPDATE SET
        opening_qty = EXCLUDED.opening_qty,
        quantity = positions.quantity + EXCLUDED.opening_qty - positions.opening_qty,
        version = positions.version + CASE WHEN positions.active_close_request_id IS NULL THEN 1 ELSE 0 END,
        updated_at = closeflow_now(),
        status = CASE
            WHEN positions.active_close_request_id IS NOT NULL THEN positions.status
            WHEN abs(positions.quantity + EXCLUDED.opening_qty - positions.opening_qty) < @POSITIONS THEN 'closed'
            WHEN positions.status = 'closed' THEN 'open'
            ELSE positions.status END,
        closed_at = CASE
            WHEN positions.active_close_request_id IS NULL
                 AND abs(positions.quantity + EXCLUDED.opening_qty - positions.opening_qty) < @POSITIONS
            THEN closeflow_now() END,
        reopened_at = CASE
            WHEN positions.status = 'closed' THEN COALESCE(positions.reopened_at, closeflow_now())
            ELSE positions.reopened_at END
    WHERE positions.opening_qty <> EXCLUDED.opening_qty
    RETURNING *, closeflow_now() AS at
""".replace("@LOT", LOT).replace("@POSITIONS", LOT.replace("asset_type", "positions.asset_type"))
)
_TAGGED: Final = text("""
    SELECT * FROM positions WHERE overfill_of = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE
""")


@dataclass(frozen=True, slots=True)
class Held:
    """The events that say what the tagged positions hold now. Of those that are being closed, `followed` has by how
    much they changed: rule Q decides what that means, and says it."""

    events: Sequence[Event] = ()
    followed: Mapping[int, Decimal] = field(default_factory=dict)
    at: datetime | None = None


async def hold_overfills(tx: AsyncConnection, *, overfills: Mapping[int, Decimal]) -> Held:
    """Bring the tagged positions in line: by position id, what is beyond its zero (signed; 0 when nothing is any more).

    Their positions' rows have to be locked.
    """
    if not overfills:
        return Held()
    rows = [{"id": position_id, "quantity": overfills[position_id]} for position_id in sorted(overfills)]
    tagged = {row["id"]: mapping.position(row) for row in await fetch(tx, _TAGGED, {"ids": sorted(overfills)})}
    held = await fetch(tx, _HOLD, {"rows": rows_json(rows)})
    closing = {key for key, one in tagged.items() if one.active_close_request_id is not None}
    return Held(
        events=[_event(tagged.get(row["id"]), row, at=row["at"]) for row in held if row["id"] not in closing],
        followed={
            row["id"]: row["opening_qty"] - tagged[row["id"]].opening_quantity for row in held if row["id"] in closing
        },
        at=held[0]["at"] if held else None,
    )


def _event(before: Position | None, row: Row, *, at: datetime) -> Event:
    after: Position = mapping.position(row)
    was = before or replace(after, quantity=Decimal(0))
    return position_event(was, after, None, cause=PositionCause.OVERFILL, at=at)
