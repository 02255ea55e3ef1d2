"""The kill switch and the account limits, changed with a reason and recorded."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from closeflow.domain.account_limits import AccountLimits
from closeflow.domain.operator.requests import Already, Refused
from closeflow.domain.trading_controls import GLOBAL, TradingState
from closeflow.operating.acting import Acted, NotThere, Operator, OperatorAction, record
from closeflow.storage import trading_controls as rows
from closeflow.storage.core.engine import Database, Transaction, retrying

_ACTIONS: Final = {TradingState.ACTIVE: "release", TradingState.REDUCING: "reduce", TradingState.HALTED: "halt"}


async def set_trading(
    database: Database, state: TradingState, operator: Operator, *, account: str | None
) -> Already | Acted:
    """Change one scope of the kill switch. Raises NotThere for an account that does not exist."""
    scope = account or GLOBAL

    async def work(tx: Transaction) -> Already | Acted:
        if account is not None and not await rows.account_exists(tx, account_id=account, accounts=operator.accounts):
            raise NotThere(f"there is no account {account}; `closectl limits show` lists those that are")
        before = await rows.lock_scope(tx, scope=scope)
        was = TradingState.ACTIVE.value if before is None else before["state"]
        if before is not None and was == state:
            return Already(f"{_named(scope)} is {state} already, by {before['by']}: {before['reason']}")
        await rows.set_state(tx, scope=scope, state=state, reason=operator.reason, by=operator.by)
        act = OperatorAction(operator, _ACTIONS[state], scope)
        before_it = {"state": None if before is None else was}
        await record(tx, act, account=account, before=before_it, after={"state": state})
        return Acted(f"{_named(scope)} is {state}" + await _still(tx, state, account))

    return await retrying(database, work)


async def _still(tx: Transaction, state: TradingState, account: str | None) -> str:
    """What a release does not lift: the stricter of the two scopes counts."""
    if state is not TradingState.ACTIVE:
        return ""
    others = [
        f"{_named(row['scope'])} is {row['state']}"
        for row in await rows.list_controls(tx)
        if row["state"] != TradingState.ACTIVE and (account is None or row["scope"] == GLOBAL)
    ]
    return f"; still, {', '.join(others)}" if others else ""


def _named(scope: str) -> str:
    return "trading" if scope == GLOBAL else f"trading of account {scope}"


async def change_limits(
    database: Database,
    account: str,
    operator: Operator,
    *,
    max_order_quantity: Decimal | None,
    max_order_notional: Decimal | None,
    submits_per_minute: int | None,
) -> Already | Refused | Acted:
    """Change what is given, and leave the rest. Raises NotThere."""
    given: dict[str, Any] = {
        "max_order_quantity": max_order_quantity,
        "max_order_notional": max_order_notional,
        "submits_per_minute": submits_per_minute,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return Refused(("nothing is given: --max-order-qty, --max-order-notional or --submits-per-minute",))

    async def work(tx: Transaction) -> Already | Refused | Acted:
        before = await rows.lock_limits(tx, account_id=account, accounts=operator.accounts)
        if before is None:
            raise NotThere(f"there is no account {account}; `closectl limits show` lists those that are")
        after = replace(before, **chosen)
        if after == before:
            return Already(f"these are the limits of account {account}")
        await rows.set_limits(
            tx,
            account_id=account,
            max_order_quantity=after.max_order_quantity,
            max_order_notional=after.max_order_notional,
            submits_per_minute=after.submits_per_minute,
        )
        act = OperatorAction(operator, "set_limits", account)
        await record(tx, act, account=account, before=_recorded(before), after=_recorded(after))
        return Acted(f"account {account}: " + ", ".join(f"{name} {value}" for name, value in _recorded(after).items()))

    return await retrying(database, work)


def _recorded(of: AccountLimits) -> dict[str, object]:
    return {
        "max_order_qty": of.max_order_quantity,
        "max_order_notional": of.max_order_notional,
        "submits_per_minute": of.submits_per_minute,
    }
