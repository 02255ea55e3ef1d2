"""What operators do by hand: each action is a row of `operator_actions` in the transaction of its effect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import text

from closeflow.storage.core.bulk import insert_rows, rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, fetch
from closeflow.storage.schema import tables

_RECORD: Final = insert_rows(
    tables.operator_actions, ["by", "action", "subject", "reason", "before", "after", "account_id", "trace_id"]
)
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
    account_id: str | None = None,
    trace_id: str | None = None,
) -> None:
    """Record what an operator did. `before` and `after` hold what `rows_json` can write: no floats. `account_id` is
    the account that it concerns, None where it is not one alone; `trace_id` that of the call that did it."""
    row = {
        "by": storable(by),
        "action": action,
        "subject": storable(subject),
        "reason": storable(reason),
        "before": before,
        "after": after,
        "account_id": account_id,
        "trace_id": trace_id,
    }
    await tx.execute(_RECORD, {"rows": rows_json([row])})


_COLUMNS: Final = "d.id, d.at, d.by, d.action, d.subject, d.reason, d.before, d.after, d.account_id, d.trace_id"
_OWNED: Final = "(CAST(:accounts AS text[]) IS NULL OR d.account_id = ANY(CAST(:accounts AS text[])))"
# By the primary key, by (subject, id), and by (account_id, id) once per account: each backwards.
_ACTIONS: Final = text(f"""
    SELECT {_COLUMNS} FROM operator_actions d WHERE d.id < :below ORDER BY d.id DESC LIMIT :limit
""")  # noqa: S608 (constants of ours)
_ACTIONS_ON: Final = text(f"""
    SELECT {_COLUMNS} FROM operator_actions d
    WHERE (d.subject, d.id) < (:subject, :below) AND d.subject >= :subject AND {_OWNED}
    ORDER BY d.subject DESC, d.id DESC LIMIT :limit
""")  # noqa: S608
_ACTIONS_OF_ACCOUNTS: Final = text(f"""
    SELECT of_one.* FROM unnest(CAST(:accounts AS text[])) AS a (account_id) CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM operator_actions d
        WHERE (d.account_id, d.id) < (a.account_id, :below) AND d.account_id >= a.account_id
        ORDER BY d.account_id DESC, d.id DESC LIMIT :limit
    ) AS of_one ORDER BY of_one.id DESC LIMIT :limit
""")  # noqa: S608
_LAST: Final = 2**63 - 1


async def list_actions(
    tx: Transaction,
    *,
    subject: str | None,
    limit: int,
    accounts: Collection[str] | None = None,
    below: int = _LAST,
) -> list[Row]:
    """What operators did, the newest first, with ids below `below`; of `accounts` only what concerns one of them alone,
    None being everything."""
    given = {
        "subject": subject,
        "limit": limit,
        "accounts": None if accounts is None else sorted(accounts),
        "below": below,
    }
    if subject is not None:
        return await fetch(tx, _ACTIONS_ON, given)
    return await fetch(tx, _ACTIONS if accounts is None else _ACTIONS_OF_ACCOUNTS, given)
