"""The kill switch and the account limits: read in the transaction that decides, changed by operators."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from closeflow.domain.account_limits import AccountLimits
from closeflow.domain.trading_controls import GLOBAL, Controls, TradingState, effective_state
from closeflow.storage.core.bulk import storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, change, fetch

# One statement instead of the one that only asked for the time. The lock makes the window's count the account's and not
# the process's; it is the last of rule R7's, and is held until the commit. The time is taken when the lock is held and
# the switch is read: a claim that saw a release, or a wider limit, is later than it.
_LOCK_CONTROLS: Final = text("""
    WITH limits AS MATERIALIZED (
        SELECT * FROM account_limits WHERE account_id = :account_id FOR NO KEY UPDATE
    )
    SELECT closeflow_now() + (clock_timestamp() - statement_timestamp()) AS now, l.*,
           (SELECT jsonb_object_agg(scope, state) FROM trading_controls
            WHERE scope IN (:global, :account_id)) AS states,
           closeflow_is_settled(:account_id) AS settled
    FROM (VALUES (1)) AS one LEFT JOIN limits l ON TRUE
""")
_COUNT_SUBMITS: Final = text("""
    UPDATE account_limits SET window_started_at = :window_started_at, window_count = :window_count
    WHERE account_id = :account_id
""")
_LIST_CONTROLS: Final = text("""
    SELECT scope, state, reason, by, at FROM trading_controls
    WHERE CAST(:accounts AS text[]) IS NULL OR scope = :global OR scope = ANY(CAST(:accounts AS text[]))
    ORDER BY scope <> :global, scope
""")
_LOCK_SCOPE: Final = text("""
    SELECT scope, state, reason, by, at FROM trading_controls WHERE scope = :scope FOR NO KEY UPDATE
""")
_SET_STATE: Final = text("""
    INSERT INTO trading_controls (scope, state, reason, by) VALUES (:scope, :state, :reason, :by)
    ON CONFLICT (scope) DO UPDATE
    SET state = EXCLUDED.state, reason = EXCLUDED.reason, by = EXCLUDED.by, at = EXCLUDED.at
""")
_OWNED: Final = "(CAST(:accounts AS text[]) IS NULL OR account_id = ANY(CAST(:accounts AS text[])))"
_ACCOUNT: Final = text(f"SELECT account_id FROM accounts WHERE account_id = :account_id AND {_OWNED}")  # noqa: S608
_LIST_LIMITS: Final = text(f"""
    SELECT * FROM account_limits
    WHERE (CAST(:account_id AS text) IS NULL OR account_id = :account_id) AND {_OWNED} ORDER BY account_id
""")  # noqa: S608 (constants of ours)
_LOCK_LIMITS: Final = text(f"""
    SELECT * FROM account_limits WHERE account_id = :account_id AND {_OWNED} FOR NO KEY UPDATE
""")  # noqa: S608
_SET_LIMITS: Final = text("""
    UPDATE account_limits SET max_order_qty = :max_order_qty, max_order_notional = :max_order_notional,
        submits_per_minute = :submits_per_minute
    WHERE account_id = :account_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """What holds for the account, and the database's time when it was read."""

    now: datetime
    controls: Controls


async def lock_controls(tx: Transaction, *, account_id: str) -> Controlled:
    """What holds for the account now, its limits locked until the end: to be called after `lock_books` (rule R7).

    A halt that commits after this statement began is not seen by it, so what is claimed on it has to be sent within the
    fence, measured from before the call, or not at all.
    """
    (row,) = await fetch(tx, _LOCK_CONTROLS, {"account_id": account_id, "global": GLOBAL})
    state = effective_state(row["states"] or {}, account_id)
    if not row["settled"]:  # It was promoted or restored, and may have lost sends: the orders are compared first.
        state = TradingState.HALTED
    limits = None if row["max_order_qty"] is None else _limits(row)
    return Controlled(now=row["now"], controls=Controls(account_id=account_id, state=state, limits=limits))


async def count_submits(tx: Transaction, *, controls: Controls) -> None:
    """Write how many submits the account's window has now; the limits are locked since `lock_controls`."""
    limits = controls.limits
    if limits is not None:
        window = {"window_started_at": limits.window_started_at, "window_count": limits.window_count}
        await change(tx, _COUNT_SUBMITS, {"account_id": controls.account_id, **window})


async def list_controls(tx: Transaction, *, accounts: Collection[str] | None = None) -> list[Row]:
    """Every scope that was ever set, with its state: the global one first, then those of `accounts`, None being all."""
    return await fetch(tx, _LIST_CONTROLS, {"global": GLOBAL, "accounts": _listed(accounts)})


async def lock_scope(tx: Transaction, *, scope: str) -> Row | None:
    """The switch of `global` or of an account, locked; None where it was never set."""
    rows = await fetch(tx, _LOCK_SCOPE, {"scope": scope})
    return rows[0] if rows else None


async def set_state(tx: Transaction, *, scope: str, state: TradingState, reason: str, by: str) -> None:
    """Set the switch of a scope. It counts from the commit on, for every transaction that sends."""
    await change(tx, _SET_STATE, {"scope": scope, "state": state, "reason": storable(reason), "by": storable(by)})


async def account_exists(tx: Transaction, *, account_id: str, accounts: Collection[str] | None = None) -> bool:
    """Whether the account was imported, and is one of `accounts`; None being all."""
    return bool(await fetch(tx, _ACCOUNT, {"account_id": account_id, "accounts": _listed(accounts)}))


async def list_limits(tx: Transaction, *, account_id: str | None, accounts: Collection[str] | None = None) -> list[Row]:
    """The limits of one account, or of all by its id; only of `accounts`, None being all."""
    return await fetch(tx, _LIST_LIMITS, {"account_id": account_id, "accounts": _listed(accounts)})


async def lock_limits(
    tx: Transaction, *, account_id: str, accounts: Collection[str] | None = None
) -> AccountLimits | None:
    """The account's limits, locked before they are changed; None for an unknown account, or none of `accounts`."""
    rows = await fetch(tx, _LOCK_LIMITS, {"account_id": account_id, "accounts": _listed(accounts)})
    return _limits(rows[0]) if rows else None


async def set_limits(
    tx: Transaction,
    *,
    account_id: str,
    max_order_quantity: Decimal,
    max_order_notional: Decimal,
    submits_per_minute: int,
) -> None:
    """Change the limits and leave the window as it is."""
    limits = {
        "max_order_qty": max_order_quantity,
        "max_order_notional": max_order_notional,
        "submits_per_minute": submits_per_minute,
    }
    await change(tx, _SET_LIMITS, {"account_id": account_id, **limits})


def _listed(accounts: Collection[str] | None) -> list[str] | None:
    return None if accounts is None else sorted(accounts)


def _limits(row: Row) -> AccountLimits:
    return AccountLimits(
        max_order_quantity=row["max_order_qty"],
        max_order_notional=row["max_order_notional"],
        submits_per_minute=row["submits_per_minute"],
        window_started_at=row["window_started_at"],
        window_count=row["window_count"],
    )
