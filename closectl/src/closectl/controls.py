"""`closectl halt`, `reduce`, `release`, `controls`, `limits`: what may be sent, changed with a reason and recorded."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from closectl.arguments import Amount, AsJson, By, Reason, named, proper_name
from closectl.command_line import examples
from closectl.environment import with_database
from closectl.operating.acting import Acted, NotThere
from closectl.operating.commands import perform
from closectl.output import print_json, print_rows
from closeflow.domain.account_limits import AccountLimits
from closeflow.domain.operator.requests import Already, Refused
from closeflow.domain.trading_controls import GLOBAL, TradingState
from closeflow.storage import trading_controls as rows
from closeflow.storage.core.engine import Database, Transaction, retrying, transaction
from closeflow.storage.operator_actions import record_action

_SHOWN: Final = (
    "account_id",
    "max_order_qty",
    "max_order_notional",
    "submits_per_minute",
    "window_started_at",
    "window_count",
)
_ACTIONS: Final = {TradingState.ACTIVE: "release", TradingState.REDUCING: "reduce", TradingState.HALTED: "halt"}

controls = typer.Typer(no_args_is_help=True, help="The kill switch: what is halted, by whom and why.")
limits = typer.Typer(no_args_is_help=True, help="How much an account may send: per order, and per minute.")

Account = Annotated[str | None, named("Only this account; without it, every account.")]


async def set_trading(
    database: Database, state: TradingState, *, account: str | None, by: str, reason: str
) -> Already | Acted:
    """Change one scope of the kill switch. Raises NotThere for an account that does not exist."""
    scope = account or GLOBAL

    async def work(tx: Transaction) -> Already | Acted:
        if account is not None and not await rows.account_exists(tx, account_id=account):
            raise NotThere(f"there is no account {account}; `closectl limits show` lists those that are")
        before = await rows.lock_scope(tx, scope=scope)
        was = TradingState.ACTIVE.value if before is None else before["state"]
        if before is not None and was == state:
            return Already(f"{_named(scope)} is {state} already, by {before['by']}: {before['reason']}")
        await rows.set_state(tx, scope=scope, state=state, reason=reason, by=by)
        await record_action(
            tx,
            by=by,
            action=_ACTIONS[state],
            subject=scope,
            reason=reason,
            before={"state": None if before is None else was},
            after={"state": state},
        )
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
    *,
    max_order_quantity: Decimal | None,
    max_order_notional: Decimal | None,
    submits_per_minute: int | None,
    by: str,
    reason: str,
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
        before = await rows.lock_limits(tx, account_id=account)
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
        await record_action(
            tx,
            by=by,
            action="set_limits",
            subject=account,
            reason=reason,
            before=_recorded(before),
            after=_recorded(after),
        )
        return Acted(f"account {account}: " + ", ".join(f"{name} {value}" for name, value in _recorded(after).items()))

    return await retrying(database, work)


def _recorded(of: AccountLimits) -> dict[str, object]:
    return {
        "max_order_qty": of.max_order_quantity,
        "max_order_notional": of.max_order_notional,
        "submits_per_minute": of.submits_per_minute,
    }


def halt(reason: Reason, account: Account = None, by: By = "") -> None:
    """Stop: from now on no new order leaves, within one second, and no new close is accepted.

    Cancels, look-ups and fills go on; what was accepted waits, and goes on after `closectl release`. It is kept in the
    database, so a restart lifts nothing.
    """
    _set(TradingState.HALTED, account, by, reason)


def reduce(reason: Reason, account: Account = None, by: By = "") -> None:
    """Let only those orders pass that make a position smaller. Every close does, so closes go on."""
    _set(TradingState.REDUCING, account, by, reason)


def release(reason: Reason, account: Account = None, by: By = "") -> None:
    """Let orders leave again. The stricter of the global state and the account's counts."""
    _set(TradingState.ACTIVE, account, by, reason)


def _set(state: TradingState, account: str | None, by: str, reason: str) -> None:
    perform(lambda database: set_trading(database, state, account=account, by=by, reason=reason))


@controls.command("show", epilog=examples("controls show"))
def show_controls(as_json: AsJson = False) -> None:
    """Show every scope of the kill switch. An account that is not listed has the global state."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with transaction(database) as tx:
            return await rows.list_controls(tx)

    found = with_database(work)
    if as_json:
        print_json(found)
    else:
        print_rows(found, ("scope", "state", "by", "at", "reason"))


@limits.command("show", epilog=examples("limits show --account main"))
def show_limits(account: Annotated[str | None, named("Only this account.")] = None, as_json: AsJson = False) -> None:
    """Show the limits of each account, and how many orders it has sent since its window of a minute began."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with transaction(database) as tx:
            return await rows.list_limits(tx, account_id=account)

    found = with_database(work)
    if as_json:
        print_json(found)
    else:
        print_rows(found, _SHOWN)


@limits.command(
    "set", epilog=examples("limits set --account main --max-order-qty 500 --submits-per-minute 60 --reason 'as agreed'")
)
def set_limits(
    account: Annotated[str, typer.Option(callback=proper_name, help="The account.")],
    reason: Reason,
    max_order_qty: Amount = None,
    max_order_notional: Amount = None,
    submits_per_minute: Annotated[int | None, typer.Option(min=1, max=1_000_000)] = None,
    by: By = "",
) -> None:
    """Change limits of an account; what is not given stays. They hold from the next order on, in every process.

    Quantity is per order; notional is price × quantity × multiplier, in the position's currency. A close above either
    fails with an incident and sends nothing. Submits above the rate wait for the next minute.
    """
    perform(
        lambda database: change_limits(
            database,
            account,
            max_order_quantity=max_order_qty,
            max_order_notional=max_order_notional,
            submits_per_minute=submits_per_minute,
            by=by,
            reason=reason,
        )
    )
