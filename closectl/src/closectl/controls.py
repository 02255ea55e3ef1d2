"""`closectl halt`, `reduce`, `release`, `controls`, `limits`: what may be sent, changed with a reason and recorded."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from closectl.arguments import Amount, AsJson, By, Reason, named, proper_name
from closectl.command_line import examples
from closectl.environment import with_database
from closectl.operating.commands import perform
from closectl.output import print_json, print_rows
from closeflow.domain.trading_controls import TradingState
from closeflow.operating.acting import Operator
from closeflow.operating.trading_controls import change_limits, set_trading
from closeflow.storage import trading_controls as rows
from closeflow.storage.core.engine import Database, transaction

_SHOWN: Final = (
    "account_id",
    "max_order_qty",
    "max_order_notional",
    "submits_per_minute",
    "window_started_at",
    "window_count",
)

controls = typer.Typer(no_args_is_help=True, help="The kill switch: what is halted, by whom and why.")
limits = typer.Typer(no_args_is_help=True, help="How much an account may send: per order, and per minute.")

Account = Annotated[str | None, named("Only this account; without it, every account.")]


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
    perform(lambda database: set_trading(database, state, Operator(by=by, reason=reason), account=account))


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
            Operator(by=by, reason=reason),
            max_order_quantity=max_order_qty,
            max_order_notional=max_order_notional,
            submits_per_minute=submits_per_minute,
        )
    )
