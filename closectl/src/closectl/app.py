"""The command line: import positions, close them, look at closes, verify the invariants."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from closectl.arguments import LARGEST_ID, AsJson, Key, Limit, amount, named, numbered, pairs, seconds
from closectl.closing import CloseRefused, close_position
from closectl.command_line import OneLineErrors, examples
from closectl.controls import controls, halt, limits, reduce, release
from closectl.dlq import dlq
from closectl.environment import KAFKA_NOT_SET, account_at_broker, kafka_if_set, with_database
from closectl.import_positions import ImportRefused, import_positions
from closectl.operating.commands import actions, incidents, requests, senders
from closectl.operating.ledger_commands import (
    ADJUST_EXAMPLES,
    END_EXAMPLES,
    OVERRIDE_EXAMPLES,
    adjust_,
    end_,
    orders,
    override_,
)
from closectl.output import console, fail, plain, print_json, print_rows
from closectl.parked import parked
from closectl.platform.commands import connector, database, topics
from closectl.platform.replay import REPLAY_EXAMPLES, replay_
from closectl.positions_file import REQUIRED, BadFile, read_positions
from closectl.reconciling.commands import reconcile
from closectl.secrets import secrets
from closectl.settings import ClosectlSettings
from closectl.tokens import token
from closectl.top.command import top
from closectl.verifying import print_report, report_json, verify
from closeflow.domain.model import OrderType, PositionStatus, RequestStatus
from closeflow.settings import load
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.timeline import list_positions, list_requests, request_with_timeline

app = typer.Typer(
    name="closectl",
    cls=OneLineErrors,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Close trading positions and see what became of them. Settings: CLOSECTL_API_URL, CLOSECTL_API_TOKEN, "
    "CLOSECTL_POSTGRES_DSN, CLOSECTL_KAFKA_BOOTSTRAP_SERVERS, CLOSECTL_BROKER_URL (`make run` prints them).",
)
positions = typer.Typer(no_args_is_help=True, help="Positions: import, list, adjust, override.")
app.add_typer(positions, name="positions")
positions.command("adjust", epilog=ADJUST_EXAMPLES)(adjust_)
positions.command("end", epilog=END_EXAMPLES)(end_)
positions.command("override", epilog=OVERRIDE_EXAMPLES)(override_)
topics.command("replay", epilog=REPLAY_EXAMPLES)(replay_)
app.add_typer(requests, name="requests")
app.add_typer(orders, name="orders")
app.add_typer(incidents, name="incidents")
app.add_typer(senders, name="senders")
app.add_typer(actions, name="actions")
app.add_typer(controls, name="controls")
app.add_typer(limits, name="limits")
for verb, why in ((halt, "prices are wrong"), (reduce, "no new exposure today"), (release, "prices are right again")):
    app.command(
        epilog=examples(f"{verb.__name__} --reason '{why}'", f"{verb.__name__} --account main --reason '{why}'")
    )(verb)
app.command(epilog=examples("top", "top --account main --interval 5", "top --once | less"))(top)
app.add_typer(dlq, name="dlq")
app.add_typer(parked, name="parked")
app.add_typer(reconcile, name="reconcile")
app.add_typer(token, name="token")
app.add_typer(secrets, name="secrets")
app.add_typer(database, name="database")
app.add_typer(topics, name="topics")
app.add_typer(connector, name="connector")


@positions.command(
    "import",
    epilog=examples(
        "positions import positions.csv",
        "positions import export.csv --map Qty=quantity --map 'Asset class=asset_type' --set account_id=main",
    ),
)
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with a header.", exists=True, dir_okay=False, readable=True)],
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="What one of the file's columns is here: theirs=ours.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="The value of a column that the file lacks: ours=value.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring positions in from a CSV file; the same file again changes nothing.

    Columns: account_id, symbol, asset_type (stock, option, crypto), quantity (signed, short below 0), multiplier,
    currency, and optionally position_id and side (long, short). With --map or --set it is a broker's export: other
    columns are left out, and what it does not say of multiplier and currency is 1 (options 100) and USD. Nothing is
    written unless the whole file is right.
    """
    settings = load(ClosectlSettings)
    columns, constants = pairs(map_, "--map"), pairs(set_, "--set", known=REQUIRED)
    try:
        rows = read_positions(_lines(file), columns, constants)
        done = with_database(lambda database: import_positions(database, rows, broker=settings.broker))
    except BadFile as error:
        fail(f"{file} cannot be imported, and nothing was:\n" + "\n".join(error.problems))
    except ImportRefused as error:
        fail(f"{file} contradicts positions that are here; nothing was imported:\n" + "\n".join(error.conflicts))
    if as_json:
        print_json({"added": done.added, "unchanged": done.unchanged})
    else:
        console.print(f"{done.added} positions added, {done.unchanged} unchanged")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        fail(f"{file} is not UTF-8: {error}")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", code=2)


@positions.command("list", epilog=examples("positions list", "positions list --account main --status close_failed"))
def list_positions_(
    account: Annotated[str | None, named("Only this account.")] = None,
    status: Annotated[PositionStatus | None, typer.Option(help="Only this status.")] = None,
    after: Annotated[int, typer.Option(min=0, max=LARGEST_ID, help="Only ids above this one: the next page.")] = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List positions by id."""

    async def work(database: Database) -> list[dict[str, object]]:
        async with transaction(database) as tx:
            return await list_positions(tx, account=account, status=status, after=after, limit=limit)

    rows = with_database(work)
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("id", "account_id", "symbol", "asset_type", "opening_qty", "quantity", "status", "closed_at"))


@app.command("list", epilog=examples("list", "list --status failed", "list --position 104"))
def list_requests_(
    status: Annotated[RequestStatus | None, typer.Option(help="Only this status.")] = None,
    position: Annotated[int | None, numbered("Only closes of this position.", kind=typer.Option)] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List close requests, the newest first."""

    async def work(database: Database) -> list[dict[str, object]]:
        async with transaction(database) as tx:
            return await list_requests(tx, status=status, position_id=position, limit=limit)

    rows = with_database(work)
    if as_json:
        print_json(rows)
    else:
        columns = ("id", "position_id", "symbol", "side", "status", "filled_qty", "target_qty", "attempt", "reason")
        print_rows(rows, columns)


@app.command(
    epilog=examples("close 104", "close 104 --quantity 25 --wait 30", "close 104 --limit-price 99.5 --key 20260302-104")
)
def close(
    position_id: Annotated[int, numbered("The position to close.")],
    quantity: Annotated[
        Decimal | None, typer.Option(parser=amount, metavar="NUMBER", help="Close only this much.")
    ] = None,
    order_type: Annotated[OrderType | None, typer.Option(help="limit, unless it is given.")] = None,
    limit_price: Annotated[
        Decimal | None,
        typer.Option(parser=amount, metavar="NUMBER", help="The worst price to accept, for a limit order."),
    ] = None,
    key: Key = None,
    wait: Annotated[float, seconds("Wait this long for the close to end.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Close a position over REST (CLOSECTL_API_URL, CLOSECTL_API_TOKEN). Without --key a new one is made, and
    printed."""
    settings = load(ClosectlSettings)
    if settings.api_url is None:
        fail("CLOSECTL_API_URL is not set; give the address of close-api, such as http://127.0.0.1:8080", code=2)
    body = {"quantity": quantity, "order_type": order_type, "limit_price": limit_price}
    try:
        token = None if settings.api_token is None else settings.api_token.get_secret_value()
        answer = close_position(
            settings.api_url, position_id, body=body, key=key, wait_s=wait, token=token, tls=settings.api_tls
        )
    except CloseRefused as error:
        fail(str(error), code=error.exit_code)
    if as_json:
        print_json(answer)
    else:
        for name, value in answer.items():
            console.print(f"{name:22} {plain(value)}", markup=False)


@app.command(epilog=examples("show 01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22"))
def show(
    close_request_id: Annotated[UUID, typer.Argument(help="The close request.")],
    as_json: AsJson = False,
) -> None:
    """Show one close: its state, its orders, and every fact about it in the order of time, with its source."""

    async def work(database: Database) -> dict[str, object] | None:
        async with transaction(database) as tx:
            return await request_with_timeline(tx, request_id=close_request_id)

    found = with_database(work)
    if found is None:
        fail(f"there is no close request {close_request_id}; `closectl list` shows those that are")
    if as_json:
        print_json(found)
        return
    _print_close(found)


def _print_close(found: dict[str, object]) -> None:
    request, orders, incidents, timeline = (found[name] for name in ("request", "orders", "incidents", "timeline"))
    assert isinstance(request, dict)
    assert isinstance(orders, list)
    assert isinstance(incidents, list)
    assert isinstance(timeline, list)
    shown = ("id", "position_id", "symbol", "side", "status", "reason", "filled_qty", "target_qty", "attempt")
    print_rows([request], shown)
    console.print()
    columns = ("client_order_id", "status", "quantity", "executed_qty", "limit_price", "avg_price", "reject_code")
    print_rows(orders, columns, title="orders")
    console.print()
    for row in timeline:
        row["detail"] = " ".join(f"{name}={value}" for name, value in row["detail"].items() if value is not None)
    print_rows(timeline, ("at", "source", "what", "detail"), title="timeline")
    if incidents:
        console.print()
        print_rows(incidents, ("opened_at", "kind", "severity", "count", "closed_at", "detail"), title="incidents")


@app.command("verify", epilog=examples("verify", "verify --wait 30 --json"))
def verify_(
    wait: Annotated[float, seconds("First wait until all is quiet, at most this long.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check every invariant on one snapshot of the database, on the topics, on the committed offsets and at the broker.

    Says of each what was looked at and how much of it; what could not be reached is said to be not checked.
    Exit code 0: no violation, 1: a violation, 2: no database.
    """
    kafka = kafka_if_set() or KAFKA_NOT_SET
    account = account_at_broker()
    report = with_database(lambda database: verify(database, kafka=kafka, account=account, wait_s=wait))
    if as_json:
        print_json(report_json(report))
    else:
        print_report(report)
    if report.violations:
        raise typer.Exit(1)
