"""Which records of the dead letter topics an operator has handled, and how."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import text

from closeflow.storage.core.bulk import insert_rows, rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import change, fetch
from closeflow.storage.operator_actions import record_action
from closeflow.storage.schema import tables

DlqAction = Literal["replayed", "discarded"]
_VERBS: Final = {"replayed": "dlq_replay", "discarded": "dlq_discard"}

_HANDLED: Final = text("""
    SELECT h.topic, h.partition, h."offset", h.appended_at, h.action, h.by, h.reason, h.at
    FROM dead_letter_actions h
    JOIN jsonb_populate_recordset(NULL::dead_letter_actions, CAST(:rows AS jsonb)) AS r
      ON (h.topic, h.partition, h."offset", h.appended_at) = (r.topic, r.partition, r."offset", r.appended_at)
""")
_RECORD: Final = insert_rows(
    tables.dead_letter_actions,
    ["topic", "partition", "offset", "appended_at", "action", "by", "reason", "at"],
    conflict="DO NOTHING",
)
_NOW: Final = text("SELECT closeflow_now() AS now")


@dataclass(frozen=True, slots=True, kw_only=True)
class DlqRecordId:
    """A letter: where it is, and when Kafka took it, because offsets begin again in a topic that was made anew."""

    topic: str
    partition: int
    offset: int
    appended_at: datetime

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """What an operator did with a dead letter, who, why and when."""

    action: DlqAction
    by: str
    reason: str
    at: datetime


async def handled_letters(tx: Transaction, *, letters: Collection[DlqRecordId]) -> dict[DlqRecordId, Handled]:
    """Those of the letters that were replayed or discarded."""
    if not letters:
        return {}
    rows = await fetch(tx, _HANDLED, {"rows": rows_json([_row(one) for one in letters])})
    return {
        DlqRecordId(
            topic=row["topic"], partition=row["partition"], offset=row["offset"], appended_at=row["appended_at"]
        ): Handled(action=row["action"], by=row["by"], reason=row["reason"], at=row["at"])
        for row in rows
    }


async def record_handled(
    tx: Transaction, *, letters: Collection[DlqRecordId], action: DlqAction, by: str, reason: str
) -> None:
    """Keep what was done with the letters, and a row of `operator_actions` for each."""
    if not letters:
        return
    now = (await fetch(tx, _NOW))[0]["now"]
    done = {"action": action, "by": storable(by), "reason": storable(reason), "at": now}
    await change(tx, _RECORD, {"rows": rows_json([{**_row(one), **done} for one in letters])})
    for one in letters:
        await record_action(tx, by=by, action=_VERBS[action], subject=str(one), reason=reason)


def _row(letter: DlqRecordId) -> dict[str, object]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "appended_at": letter.appended_at,
    }
