"""`closectl reconcile`: the sums of accounting's events, of the ledger and of the broker, and what differs by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from closectl.arguments import AsJson, FirstDay, LastDay, named, seconds
from closectl.broker import Account
from closectl.command_line import examples
from closectl.environment import account_at_broker, broker_account_id, kafka_connection, kafka_says, with_database
from closectl.output import fail, print_json
from closectl.reconciling.columns import ALPACA, BadColumns, read_columns
from closectl.reconciling.compare import Scope, ToldEvents, compare
from closectl.reconciling.items import Comparison, Source
from closectl.reconciling.lines import from_statement
from closectl.reconciling.printing import comparison_json, print_comparison
from closectl.reconciling.sources import BrokerUnavailable, Listed, ask_listed, first_order_at, read_events, read_ledger
from closectl.reconciling.statement import BadStatement, Stated, read_statement
from closeflow.kafka import KafkaConnection, KafkaError
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.ledger_rows import Ledger

POLL_S: Final = 2.0
SETTLED_WITHIN_S: Final = 40.0
"""A little more than an event may take to Kafka."""

reconcile = typer.Typer(
    no_args_is_help=True, help="Compare accounting's events, the ledger of executions and the broker, to the cent."
)

Without = Annotated[
    list[Source] | None, typer.Option("--without", help="Leave this source out (events, broker); may be repeated.")
]
EveryDay = Annotated[bool, typer.Option("--all", help="Show also the days that agree.")]


@dataclass(frozen=True, slots=True)
class Statement:
    """The executions of an export, the account of those that name none, and the days that are asked for."""

    stated: Sequence[Stated]
    account: str | None
    between: tuple[date | None, date | None]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to read; None is left out. What the broker executed is in its answer or in a statement."""

    kafka: KafkaConnection | None
    account: Account | None
    statement: Statement | None = None


@reconcile.command(
    "ledger",
    epilog=examples(
        "reconcile ledger",
        "reconcile ledger --since 2026-03-02 --until 2026-03-02 --account main --json",
        "reconcile ledger --without broker",
    ),
)
def ledger_(
    account: Annotated[str | None, named("Only this account.")] = None,
    symbol: Annotated[str | None, named("Only this symbol.")] = None,
    since: FirstDay = None,
    until: LastDay = None,
    without: Without = None,
    wait: Annotated[
        float, seconds("Wait this long for executions that not every source can have yet.")
    ] = SETTLED_WITHIN_S,
    every_day: EveryDay = False,
    as_json: AsJson = False,
) -> None:
    """Compare what `execution-events` tells accounting, the executions in the database and what the broker lists: their
    sums per account, symbol and day (UTC), and what differs by name, with the cash that it is off by.

    Commission and fees are compared order by order, not in the sums. Exit code 0: all agree, 1: something differs, 2:
    not everything that was asked for could be compared.
    """
    scope = Scope(account=account, symbol=symbol, first=since, last=until)
    left_out = frozenset(without or ())
    if Source.EXECUTIONS in left_out:
        raise typer.BadParameter("--without executions leaves nothing to compare with; give events or broker")
    if left_out >= {Source.EVENTS, Source.BROKER}:
        raise typer.BadParameter("--without events and --without broker leave nothing to compare; give one of them")
    sources = Sources(
        None if Source.EVENTS in left_out else kafka_connection(),
        None if Source.BROKER in left_out else _account(),
    )
    conclude(run(sources, scope, wait_s=wait), every_day=every_day, as_json=as_json)


@reconcile.command(
    "statement",
    epilog=examples(
        "reconcile statement activities.json --account main",
        "reconcile statement fills.csv --columns fills.toml --since 2026-03-02 --until 2026-03-02 --json",
    ),
)
def statement_(
    file: Annotated[Path, typer.Argument(help="The export, CSV or JSON.", exists=True, dir_okay=False, readable=True)],
    columns: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the export calls its columns (TOML); Alpaca's names without it.", dir_okay=False
        ),
    ] = None,
    account: Annotated[str | None, named("Our name of its account; CLOSECTL_BROKER_ACCOUNT_ID without it.")] = None,
    symbol: Annotated[str | None, named("Only this symbol.")] = None,
    since: FirstDay = None,
    until: LastDay = None,
    without: Without = None,
    wait: Annotated[float, seconds("Wait this long for events that Kafka cannot have yet.")] = SETTLED_WITHIN_S,
    every_day: EveryDay = False,
    as_json: AsJson = False,
) -> None:
    """Compare the same with a broker's activity export instead of the broker's answer: the days (UTC) that it covers,
    from its first execution to its last, or from --since to --until.

    --columns says what the export calls symbol, quantity, price and time, and what else it has (docs/reconciling.md).
    A line that cannot be read is refused with its number, and nothing is compared. Exit codes as of `ledger`.
    """
    if set(without or ()) - {Source.EVENTS}:
        raise typer.BadParameter("--without may leave out events here; the export is the broker")
    try:
        given = ALPACA if columns is None else read_columns(columns)
        stated = read_statement(_text_of(file), given)
    except BadColumns as error:
        fail(str(error), code=2)
    except BadStatement as error:
        fail(f"{file} cannot be compared:\n" + "\n".join(error.problems), code=2)
    whose = account or given.account or broker_account_id()
    if whose is None and not all(one.account for one in stated):
        fail(f"{file} does not say of which account it is; give --account", code=2)
    if not stated and (since is None or until is None):
        fail(f"{file} has no executions; give --since and --until to compare days that have none", code=2)
    statement = Statement(stated, whose, (since, until))
    sources = Sources(None if Source.EVENTS in (without or ()) else kafka_connection(), None, statement)
    scope = Scope(account=account, symbol=symbol, first=since, last=until)
    conclude(run(sources, scope, wait_s=wait), every_day=every_day, as_json=as_json)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        fail(f"{file} is not UTF-8: {error}; save it as that", code=2)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", code=2)


def _account() -> Account:
    found = account_at_broker()
    if isinstance(found, str):
        fail(f"the broker cannot be asked: {found}; set them, or compare --without broker", code=2)
    return found


def run(sources: Sources, scope: Scope, *, wait_s: float) -> Comparison:
    """Read and compare, again until nothing is too new or the wait is over. Exits with 2 where a source is away."""

    async def work(database: Database) -> Comparison:
        ends = time.monotonic() + wait_s
        while True:
            found = await compare_once(database, sources, scope)
            if not found.too_new or time.monotonic() >= ends:
                return found
            await asyncio.sleep(min(POLL_S, max(0.0, ends - time.monotonic())))

    try:
        return with_database(work)
    except BrokerUnavailable as error:
        url = sources.account.url if sources.account is not None else "the broker"
        fail(f"{url} did not tell its executions: {error}; repeat it, or compare --without broker", code=2)
    except (KafkaError, OSError, LookupError, TimeoutError) as error:
        _kafka_failed(sources, error)


def _kafka_failed(sources: Sources, error: Exception) -> NoReturn:
    if sources.kafka is None:
        raise error
    fail(kafka_says(sources.kafka, error), code=2)


async def compare_once(database: Database, sources: Sources, scope: Scope) -> Comparison:
    """The broker's list, the ledger and the events, in this order, and what comes of them."""
    listed = await _listed(database, sources.account, scope) if sources.account is not None else None
    ledger = await read_ledger(database)
    events: ToldEvents | None = await read_events(sources.kafka) if sources.kafka is not None else None
    listing = listed.against(ledger) if listed is not None else None
    if (given := sources.statement) is not None:
        listing = from_statement(given.stated, ledger, given.account, given.between)
    return compare(ledger, events, listing, scope, not_compared=_not_asked(ledger, listed, scope))


async def _listed(database: Database, account: Account, scope: Scope) -> Listed:
    first = await first_order_at(database) or datetime.now(UTC)
    if scope.first is not None:
        first = max(first, datetime.combine(scope.first, time_of_day(), tzinfo=UTC))
    return await ask_listed(account, first)


def _not_asked(ledger: Ledger, listed: Listed | None, scope: Scope) -> Sequence[str]:
    """The accounts that were asked for and that the broker's settings are not for."""
    if listed is None:
        return ()
    wanted = {one for one in ledger.accounts if scope.account in (None, one)}
    return [
        f"account {one} at the broker: the settings are for {listed.account_id}; give --account {listed.account_id}"
        for one in sorted(wanted - {listed.account_id})
    ]


def conclude(found: Comparison, *, every_day: bool, as_json: bool) -> None:
    """Print it, and exit with what it comes to."""
    if as_json:
        print_json(comparison_json(found))
    else:
        print_comparison(found, every_day=every_day)
    if found.differences:
        raise typer.Exit(1)
    if found.not_compared:
        raise typer.Exit(2)
