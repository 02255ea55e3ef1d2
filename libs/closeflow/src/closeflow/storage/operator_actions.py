"""What operators do by hand: each action is a row of `operator_actions` in the transaction of its effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import text

from closeflow.storage.core.bulk import insert_rows, rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, fetch
from closeflow.storage.schema import tables

_RECORD: Final = insert_rows(tables.operator_actions, ["by", "action", "subject", "reason", "before", "after"])
# The history's triggers take who and why from here (migration 0005).
_ACT_AS: Final = text("SELECT set_config('closeflow.by', :by, true), set_config('closeflow.reason', :reason, true)")


async def act_as(tx: Transaction, *, by: str, reason: str) -> None:
    """Let `status_history` name the operator and the reason for every move of this transaction."""
    await tx.execute(_ACT_AS, {"by": storable(by), "reason": storable(reason)})


async def record_action(
    tx: Transaction,
    *,
    by: str,
    action: str,
    subject: str,
    reason: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Record what an operator did. `before` and `after` hold what `rows_json` can write: no floats."""
    row = {
        "by": storable(by),
        "action": action,
        "subject": storable(subject),
        "reason": storable(reason),
        "before": before,
        "after": after,
    }
    await tx.execute(_RECORD, {"rows": rows_json([row])})


_ACTIONS: Final = text("""
    SELECT id, at, by, action, subject, reason, before, after FROM operator_actions
    WHERE (CAST(:subject AS text) IS NULL OR subject = :subject)
    ORDER BY id DESC LIMIT :limit
""")


async def list_actions(tx: Transaction, *, subject: str | None, limit: int) -> list[Row]:
    """What operators did, the newest first."""
    return await fetch(tx, _ACTIONS, {"subject": subject, "limit": limit})
