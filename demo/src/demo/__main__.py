"""`python -m demo`: close a portfolio through the real parts and show it; `python -m demo run`: keep it running."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from statistics import median
from typing import Any, Final, NoReturn

from rich.console import Console

import devstack
from closectl.positions_file import read_positions
from closeflow.domain.text import decimal_text
from closeflow.kafka.read_to_end import open_tail
from closeflow.kafka.topics import load_topics
from closeflow.storage.core.engine import Database, make_engine
from demo.progress import POLL_S, Progress, is_final, read_rows
from demo.restarts import Restarts
from demo.scenario import ALREADY_CLOSING, STORIES, Asked, close_all, script, surprises
from demo.services import DidNotStart
from demo.system import BOARD, REPOSITORY, SIMULATOR, System
from demo.trouble import Stopped, alone, explain, refuse_ended

POSITIONS: Final = REPOSITORY / "demo" / "positions.csv"
CLOSED_WITHIN_S: Final = 120.0
GOOD, VIOLATION, ENVIRONMENT = 0, 1, 2
OVERRIDES: Final = {
    # The close that is never answered shall not take the whole five seconds of the default.
    "order-submitter": {"HTTP_DEADLINE_S": "2"},
}


class Violation(Exception):
    """The demo saw something it must never see."""


def main() -> int:
    """Run the demo (0 good, 1 a violation, 2 this machine lacks something) or keep the system running until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("demo", "run"), default="demo")
    parser.add_argument("--keep", action="store_true", help="leave the demo running at its end, with the board")
    parser.add_argument("--instance", help="instance of the embedded stack (default: demo, or dev for run)")
    given = parser.parse_args()
    instance = given.instance or ("demo" if given.what == "demo" else "dev")
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()

    def report(line: str) -> None:
        console.print(f"{time.monotonic() - started:6.1f}s  {line}", highlight=False, soft_wrap=True)

    try:
        stack = devstack.up(instance, report)
        overrides = OVERRIDES if given.what == "demo" else {}
        system = System(stack, f"closeflow_{instance}", stack.data_dir / "services", report, overrides)
        with alone(stack):
            try:
                if given.what == "run":
                    _run(system, console)
                return _demo(system, console, keep=given.keep)
            except (Violation, Stopped, DidNotStart, devstack.StackError):
                raise
            except Exception as error:
                raise Stopped(explain(system, error)) from error
            finally:
                # A second Ctrl-C would leave the servers running.
                for asked in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(asked, lambda *_: report("stopping already, a moment"))
                system.close()
                if given.what == "demo":
                    devstack.down(instance, report)
    except KeyboardInterrupt:
        console.print("stopped")
        return ENVIRONMENT
    except Violation as violation:
        console.print(f"[red]violation:[/] {violation}", highlight=False, soft_wrap=True)
        return VIOLATION
    except devstack.StackError as error:
        console.print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
        return ENVIRONMENT
    except (DidNotStart, Stopped) as error:
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        return ENVIRONMENT


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _demo(system: System, console: Console, *, keep: bool) -> int:
    system.report("wiping what an earlier demo left")
    system.wipe()
    _set_up(system)
    if keep:
        system.start(BOARD)
        _print_board(system, console)
    with system.control() as control:
        script(control, read_positions(POSITIONS.read_text().splitlines()))
    console.print()
    for symbol, story in STORIES.items():
        console.print(f"  {symbol:6} {story}", highlight=False, soft_wrap=True)
    console.print()
    asyncio.run(_with_database(system, lambda database: _close_and_watch(system, database, console)))
    code = subprocess.run([*_closectl(), "verify", "--wait", "30"], env=_environment(system), check=False).returncode
    console.print()
    if code == VIOLATION:
        raise Violation("closectl verify found something, see above")
    if code:
        raise Stopped(f"closectl verify could not check everything (exit code {code}), see above")
    console.print("[green]every position is closed, and every invariant that can be checked holds[/]")
    if keep:
        _print_board(system, console)
        console.print("It goes on running; Ctrl-C stops it.", highlight=False, soft_wrap=True)
        with suppress(KeyboardInterrupt):
            _watch(system)
    return GOOD


def _run(system: System, console: Console) -> NoReturn:
    """Until Ctrl-C: what ends is started again, as a service manager does it."""
    _set_up(system)
    system.start(BOARD)
    _print_board(system, console)
    console.print(
        f"\nclose-api        {system.url()}   (described by {system.url()}/openapi.json)",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"  over gRPC      {system.grpc_address()}   (schemas/proto)", highlight=False, soft_wrap=True)
    console.print(f"broker-simulator {system.url(SIMULATOR)}/control/docs", highlight=False, soft_wrap=True)
    console.print(f"logs             {system.directory}", highlight=False, soft_wrap=True)
    console.print("\nin another shell, to use closectl:\n", highlight=False, soft_wrap=True)
    for name, value in system.closectl().items():
        console.print(f"export {name}='{value}'", highlight=False, soft_wrap=True)
    console.print("\nThe token is good for a day; start again for a new one.", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops the services; `make down` stops the servers.", highlight=False, soft_wrap=True)
    _watch(system)


def _print_board(system: System, console: Console) -> None:
    """Where it is, with a token behind the # that logs in whoever opens it."""
    console.print(f"\nclose-board      {system.board_url()}   (this logs in:)", highlight=False, soft_wrap=True)
    console.print(system.board_login(), highlight=False, soft_wrap=True)


def _watch(system: System) -> NoReturn:
    """Until Ctrl-C: what ends is started again, and what is wrong is said once."""
    restarts = Restarts(system.launch, system.report)
    told: tuple[str, ...] = ()
    while True:
        restarts.look(system.running)
        wrong = devstack.status(system.stack.instance).explanation
        for line in wrong:
            if line not in told:
                system.report(f"[red]{line}[/]")
        told = wrong
        time.sleep(0.5)


def _set_up(system: System) -> None:
    system.prepare()
    system.start(SIMULATOR)
    with system.control() as control:
        if not control.positions():
            control.import_positions(POSITIONS.read_text())
    system.start_all()
    imported = subprocess.run(
        [*_closectl(), "positions", "import", str(POSITIONS)],
        env=_environment(system),
        capture_output=True,
        text=True,
        check=False,
    )
    if imported.returncode:
        raise Stopped(f"the import of {POSITIONS} failed: {imported.stderr}")
    system.report(imported.stdout.strip())


def _closectl() -> list[str]:
    return [sys.executable, "-m", "closectl"]


def _environment(system: System) -> dict[str, str]:
    return {**os.environ, **system.closectl()}


async def _with_database(system: System, work: Callable[[Database], Any]) -> None:
    database = make_engine(system.dsn("closeflow_operator"), pool_size=2, application_name="demo")
    try:
        await work(database)
    finally:
        await database.dispose()


async def _close_and_watch(system: System, database: Database, console: Console) -> None:
    doors = system.url(), system.grpc_address()
    asked = await close_all(doors, system.token(), await read_rows(database), ca_file=system.links.administrator.ca)
    if found := surprises(asked):
        raise Violation("; ".join(found))
    deadline = time.monotonic() + CLOSED_WITHIN_S
    with Progress(console) as progress:
        while True:
            rows = await read_rows(database)
            progress.show(rows)
            if is_final(rows):
                break
            refuse_ended(system)
            if time.monotonic() > deadline:
                raise Violation(f"not every close ended within {CLOSED_WITHIN_S:.0f} s")
            await asyncio.sleep(POLL_S)
    not_closed = [row["symbol"] for row in rows if row["status"] != "closed"]
    if not_closed:
        raise Violation(f"not closed: {', '.join(not_closed)}")
    await _summarise(system, rows, asked, console)


async def _summarise(system: System, rows: list[dict[str, Any]], asked: list[Asked], console: Console) -> None:
    with system.control() as control:
        orders = {order.client_order_id: order for order in control.orders(prefix="cf-")}
    console.print("\norders at the broker", style="bold")
    for row in rows:
        hex_id = row["request"]["id"].hex
        for attempt in range(1, row["request"]["attempt"] + 1):
            order = orders.get(f"cf-{hex_id}-{attempt}")
            if order is not None:
                executions = [one for accepted in order.orders for one in accepted.executions]
                filled = decimal_text(sum((one.qty for one in executions), start=Decimal(0)))
                told = f"sent {order.posts_received}, accepted {order.accepted}, {len(executions)} fills, {filled}"
                console.print(f"  {row['symbol']:20} {order.client_order_id}  {told}", highlight=False, soft_wrap=True)
    times = sorted((row["request"]["completed_at"] - row["request"]["created_at"]).total_seconds() for row in rows)
    replays = sum(one.replayed for one in asked)
    conflicts = sum(one.code == ALREADY_CLOSING for one in asked)
    over = Counter(one.address.partition(":")[0] for one in asked)
    console.print(
        f"\n{len(rows)} positions closed; request to closed: median {median(times):.2f} s, longest {times[-1]:.2f} s; "
        f"{replays} replayed, {conflicts} refused; asked over " + ", ".join(f"{way} {n}" for way, n in over.items()),
        highlight=False,
    )
    counts = await _records_per_topic(system)
    console.print(
        "records: " + ", ".join(f"{topic} {count}" for topic, count in counts.items()) + "\n", highlight=False
    )


async def _records_per_topic(system: System) -> dict[str, int]:
    names = [spec.name for spec in load_topics(REPOSITORY / "schemas" / "topics")]
    counts = dict.fromkeys(names, 0)
    async with open_tail(system.kafka, names, None) as tail:
        for record in await tail.drain():
            counts[record.topic] += 1
    return counts


if __name__ == "__main__":
    sys.exit(main())
