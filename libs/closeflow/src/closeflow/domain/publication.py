"""Which outbox rows are known to be in Kafka: the decision of the publication audit (invariant 14)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

EventKey = tuple[UUID, int]
"""Event id and emission: what makes a published record the one that a row asked for."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One row below the snapshot's xmin, so nothing of an older transaction can appear behind it."""

    key: EventKey
    position_id: int | None
    xact_id: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Judged:
    """`through`: every row of a smaller transaction id has been judged. `missing`: those not in Kafka in time."""

    through: int
    missing: tuple[OutboxRow, ...]


def judge_publication(
    rows: Sequence[OutboxRow],
    seen: Collection[EventKey],
    *,
    through: int,
    below: int,
    complete: bool,
    now: datetime,
    publish_within: timedelta,
) -> Judged:
    """Judge rows in the order of their transactions, up to the first that is not published but may still be.

    `rows` lie in [through, below); `complete` says that they are all of them, otherwise more may follow the last one.
    """
    missing: list[OutboxRow] = []
    for row in rows:
        if row.key in seen:
            continue
        if row.occurred_at + publish_within > now:
            before = tuple(one for one in missing if one.xact_id < row.xact_id)
            return Judged(row.xact_id, before)
        missing.append(row)
    if complete or not rows:
        return Judged(below, tuple(missing))
    # The last transaction may have rows that were not read, so it is judged again as a whole next time.
    last = rows[-1].xact_id
    if last > through:
        return Judged(last, tuple(one for one in missing if one.xact_id < last))
    return Judged(through, ())
