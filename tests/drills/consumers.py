"""500 closes with partial fills, retries, busts, corrections and late charges, while Connect, fill-processor and the
consumers of examples/ are killed and records come twice: ledger = executions = the broker's activities, to the cent.

`python -m tests.drills.consumers`; DRILL_CLOSES says how many closes, if not 500.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import psycopg
from psycopg import sql

import devstack
from broker_simulator.control import Behaviour, FillInParts, FillThen, MatchQuote, Shown, StreamFaults
from closeflow.kafka import Outgoing, open_producer
from demo.services import free_port
from demo.system import SIMULATOR, System
from tests.conftest import with_database
from tests.drills.harness import INSTANCE, Lines, main, verified, whole_system
from tests.examples.consuming import Example, copied
from tests.system.desk import Desk, Held, Kind

CLOSES: Final = int(os.environ.get("DRILL_CLOSES", "500"))
LEDGER: Final = "closeflow_drill_ledger"
SETTLED_WITHIN_S: Final = 300.0
SETTINGS: Final = {"reconciler": {"NON_TRADES_INTERVAL_S": "2"}}
PAID: Final = Shown(update={"commission": "0.37"}, activity={"commission": "0.37"})
KINDS: Final[tuple[Kind, ...]] = ("stock", "stock", "option", "crypto")
Cents = dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Consumers:
    """Both examples as their teams run them, beside the system."""

    accounting: Example
    risk: Example
    ledger: str
    port: int

    def start(self) -> None:
        self.accounting.start("run")
        self.risk.start("worker", "-l", "warn")

    def kill(self) -> None:
        self.accounting.kill()
        self.risk.kill()

    def kill_and_start(self) -> None:
        self.kill()
        self.start()

    def booked(self) -> list[tuple[Any, ...]]:
        try:
            with psycopg.connect(self.ledger) as db:
                return db.execute("SELECT event_id, symbol, net_amount FROM entries ORDER BY event_id").fetchall()
        except psycopg.errors.UndefinedTable:
            return []

    def cash(self) -> Cents:
        found: Cents = defaultdict(Decimal)
        for _, symbol, amount in self.booked():
            found[symbol] += amount
        return found

    def positions(self) -> dict[int, tuple[int, str, Decimal]]:
        try:
            listed = httpx.get(f"http://127.0.0.1:{self.port}/positions", timeout=10).json()
        except (httpx.TransportError, ValueError):
            return {}
        return {
            int(key): (one["position_version"], one["position_status"], Decimal(one["quantity"]))
            for key, one in listed.items()
        }


@contextmanager
def consumers(system: System, place: Path) -> Iterator[Consumers]:
    ledger = with_database(system.stack.admin_dsn, LEDGER)
    fresh_ledger(system)
    port = free_port()
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": system.stack.kafka_bootstrap_servers}
    group = f"drill-{time.time_ns()}"
    risk = {"RISK_GROUP": group, "RISK_REPLICATION": "1", "RISK_PORT": str(port), **kafka}
    books = {"ACCOUNTING_DSN": ledger, "ACCOUNTING_GROUP": f"{group}-accounting", **kafka}
    with (
        copied("accounting", place, "accounting.py", books) as accounting,
        copied("risk", place, "risk.py", risk) as view,
    ):
        yield Consumers(accounting, view, ledger, port)


def fresh_ledger(system: System) -> None:
    with psycopg.connect(system.stack.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(LEDGER)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(LEDGER)))


def script(desk: Desk, portfolio: list[Held]) -> None:
    """Every fill costs; a fifth each fills in parts, is cancelled half filled and retried, is told twice, or not at all
    by the stream."""
    for n, held in enumerate(portfolio):
        half = abs(held.quantity) / 2
        behaviour = [
            Behaviour(shown=PAID),
            Behaviour(execution=FillInParts(parts=3), shown=PAID),
            Behaviour(execution=FillThen(quantity=half, then="cancel"), shown=PAID),
            Behaviour(execution=MatchQuote(), stream=StreamFaults(copies=2), shown=PAID),
            Behaviour(execution=MatchQuote(), stream=StreamFaults(lose=True), shown=PAID),
        ][n % 5]
        desk.control.script(behaviour, symbol=held.symbol, count=1)
    desk.control.script(Behaviour(shown=PAID))


def close_under_kills(system: System, desk: Desk, beside: Consumers, portfolio: list[Held]) -> None:
    every = max(1, len(portfolio) // 5)
    kills: list[Callable[[], None]] = [
        kill_connect,
        lambda: kill_fill_processor(system),
        beside.kill_and_start,
        lambda: publish_again(system, desk),
    ]
    for n, held in enumerate(portfolio):
        desk.close(held)
        if n % every == every - 1 and kills:
            kills.pop(0)()
    for kill in kills:
        kill()


def kill_fill_processor(system: System) -> None:
    system.kill("fill-processor")
    system.start("fill-processor")


def kill_connect() -> None:
    devstack.kill_part(INSTANCE, "connect")
    devstack.start_part(INSTANCE, "connect")


def publish_again(system: System, desk: Desk) -> None:
    """A hundred of the newest records of each topic once more, as a producer that did not hear of its success does."""

    newest = {topic: desk.read(topic)[-100:] for topic in ("position-events", "execution-events")}

    async def again() -> None:
        async with open_producer(system.kafka) as producer:
            for topic, records in newest.items():
                await producer.publish_many(
                    [Outgoing(topic=topic, key=one.key, value=one.value, headers=tuple(one.headers)) for one in records]
                )

    asyncio.run(again())


def trouble_afterwards(system: System, desk: Desk, beside: Consumers) -> tuple[int, int, int]:
    """A bust of every 25th trade, a correction of every 25th, a fee or commission of every 5th, with kills among
    them; returns how many of each."""
    trades = [
        execution.execution_id
        for order in desk.control.orders()
        for one in order.orders
        for execution in one.executions
    ]
    busts, corrections, charged = trades[3::25], trades[7::25], trades[::5]
    prices = {e.execution_id: e for o in desk.control.orders() for one in o.orders for e in one.executions}
    for n, execution_id in enumerate(charged):
        desk.control.charge(execution_id, "0.07", activity_type="COMM" if n % 2 else "FEE")
        if n == len(charged) // 2:
            kill_fill_processor(system)
    for execution_id in busts:
        desk.control.bust(execution_id)
    beside.kill()
    kill_connect()
    beside.start()
    for execution_id in corrections:
        one = prices[execution_id]
        desk.control.correct(execution_id, qty=one.qty, price=one.price + Decimal("0.01"))
    return len(busts), len(corrections), len(charged)


def at_broker(desk: Desk, multipliers: dict[str, Decimal]) -> Cents:
    """The account's cash by symbol, as the broker's own list of activities makes it."""
    found: Cents = defaultdict(Decimal)
    fills: dict[str, tuple[str, Decimal]] = {}
    for one in activities(desk, "/v2/account/activities/FILL", {}):
        if (before := fills.pop(str(one.get("previous_id")), None)) is not None:
            found[before[0]] -= before[1]
        if one["type"] == "trade_bust":
            continue
        value = Decimal(one["qty"]) * Decimal(one["price"]) * multipliers[one["symbol"]]
        cash = (value if one["side"] == "sell" else -value) - Decimal(one["commission"])
        fills[one["id"]] = (one["symbol"], cash)
        found[one["symbol"]] += cash
    for one in activities(desk, "/v2/account/activities", {"category": "non_trade_activity"}):
        found[one["symbol"]] += Decimal(one["net_amount"])
    return found


def activities(desk: Desk, path: str, params: dict[str, str]) -> Iterator[dict[str, Any]]:
    key_id, secret_key = desk.system.links.broker_keys
    headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key}
    page: dict[str, str] = {}
    while True:
        asked = {"direction": "asc", "page_size": "100", **params, **page}
        answer = httpx.get(f"{desk.system.url(SIMULATOR)}{path}", params=asked, headers=headers, timeout=30)
        listed = answer.raise_for_status().json()
        yield from listed
        if len(listed) < 100:
            return
        page = {"page_token": listed[-1]["id"]}


def in_executions(desk: Desk) -> Cents:
    """The same of our executions: what stands of them, less what is charged."""
    found: Cents = defaultdict(Decimal)
    names = {row["alias_id"]: row["exec_id"] for row in desk.rows("SELECT alias_id, exec_id FROM execution_aliases")}
    rows = desk.rows("SELECT e.*, p.symbol, p.multiplier FROM executions e JOIN positions p ON p.id = e.position_id")
    by_id = {row["exec_id"]: row for row in rows}
    own: dict[str, Decimal] = {}
    for row in desk.rows("SELECT * FROM execution_charges ORDER BY recorded_at, charge_id"):
        exec_id = str(names.get(row["exec_id"], row["exec_id"]))
        if row["charge_id"] == row["exec_id"]:
            own.setdefault(exec_id, row["commission"] + row["fees"])
        else:
            found[by_id[exec_id]["symbol"]] -= row["commission"] + row["fees"]
    replaced = {names.get(row["ref_exec_id"], row["ref_exec_id"]) for row in rows}
    for row in rows:
        if row["kind"] != "bust" and row["exec_id"] not in replaced:
            value = row["quantity"] * row["price"] * row["multiplier"]
            found[row["symbol"]] += (value if row["side"] == "sell" else -value) - own[row["exec_id"]]
    return found


def in_order(desk: Desk) -> tuple[list[str], list[str]]:
    """Positions with events on several partitions or out of commit order, and those with a gap in their versions."""
    places: defaultdict[str, set[int]] = defaultdict(set)
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for record in desk.read("position-events"):
        key = (record.key or b"").decode()
        places[key].add(record.partition)
        version = int(dict(record.headers)["position_version"] or b"0")
        if version not in versions[key]:
            versions[key].append(version)
    disorder = [key for key, found in versions.items() if found != sorted(found) or len(places[key]) > 1]
    gaps = [key for key, found in versions.items() if sorted(found) != list(range(min(found), max(found) + 1))]
    return disorder, gaps


def differences(one: Cents, other: Cents) -> list[str]:
    return [f"{name}: {one[name]} and {other[name]}" for name in {*one, *other} if one[name] != other[name]]


def wait(what: str, condition: Callable[[], bool], *, within_s: float = SETTLED_WITHIN_S) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            print(f"not within {within_s:g} s: {what}", flush=True)
            return False
        time.sleep(0.5)
    return True


def risk_is_right(desk: Desk, beside: Consumers) -> bool:
    wanted = {
        row["id"]: (row["version"], row["status"], row["quantity"])
        for row in desk.rows("SELECT id, version, status, quantity FROM positions WHERE version > 1")
    }
    return bool(wanted) and beside.positions() == wanted


def drill(lines: Lines) -> None:
    with (
        whole_system(SETTINGS) as system,
        Desk(system) as desk,
        TemporaryDirectory() as place,
        consumers(system, Path(place)) as beside,
    ):
        portfolio = desk.hold_all([(4 * (1 + n % 9), KINDS[n % 4]) for n in range(CLOSES)])
        multipliers = {
            row["symbol"]: row["multiplier"] for row in desk.rows("SELECT symbol, multiplier FROM positions")
        }
        script(desk, portfolio)
        beside.start()
        close_under_kills(system, desk, beside, portfolio)
        desk.until_status("closed", portfolio, within_s=SETTLED_WITHIN_S)
        print(f"{len(portfolio)} positions are closed", flush=True)
        counts = trouble_afterwards(system, desk, beside)
        print("busts, corrections, late charges: {}, {}, {}".format(*counts), flush=True)
        booked(desk, counts)
        closed_again(desk)
        settled(lines, desk, beside, multipliers)
        again(lines, system, desk, beside)


def booked(desk: Desk, counts: tuple[int, int, int]) -> None:
    told = (
        "SELECT count(*) FILTER (WHERE kind = 'bust') + 1000 * count(*) FILTER (WHERE kind = 'correct') FROM executions"
    )
    wait("busts and corrections are booked", lambda: desk.count(told) == counts[0] + 1000 * counts[1])
    charges = "SELECT count(*) FROM execution_charges WHERE charge_id <> exec_id"
    wait("late charges are booked", lambda: desk.count(charges) == counts[2])


def closed_again(desk: Desk) -> None:
    """What a bust opened again waits for a person, who has it closed."""
    asked: set[str] = set()

    def closed() -> bool:
        for row in desk.rows("SELECT id FROM close_requests WHERE status = 'retryable' AND NOT auto_retry"):
            desk.retry(str(row["id"]))
            asked.add(str(row["id"]))
        return desk.count("SELECT count(*) FROM positions WHERE status <> 'closed'") == 0

    desk.until("what busts opened again is closed", closed, within_s=SETTLED_WITHIN_S)
    print(f"{len(asked)} that busts opened again are closed again", flush=True)


def settled(lines: Lines, desk: Desk, beside: Consumers, multipliers: dict[str, Decimal]) -> None:
    events = "SELECT count(DISTINCT id) FROM outbox_events WHERE topic = 'execution-events'"
    wait("the ledger has every event", lambda: len(beside.booked()) == desk.count(events))
    broker, executions, ledger = at_broker(desk, multipliers), in_executions(desk), beside.cash()
    total = f"{sum(ledger.values())}, {sum(executions.values())}, {sum(broker.values())}"
    wrong = differences(ledger, executions) + differences(executions, broker)
    lines.check("ledger = executions = the broker's activities, for each symbol", not wrong, wrong or total)
    balance = beside.accounting.run("balance")
    lines.check("the ledger's trial balance", balance.returncode == 0, balance.stdout.splitlines()[-1:])
    right = wait("the view of risk is right", lambda: risk_is_right(desk, beside))
    lines.check("risk view = database", right, f"{len(beside.positions())} positions")
    disorder, gaps = in_order(desk)
    lines.check("per position the events are in commit order on one partition", not disorder, disorder or "every one")
    lines.check("no gap in versions after de-duplication", not gaps, gaps or "none")
    lines.check("closectl verify", verified(desk), "")


def again(lines: Lines, system: System, desk: Desk, beside: Consumers) -> None:
    """From offset 0 a second time, then without any state."""
    before, passed = beside.booked(), "SELECT sum(next_offset) FROM offsets"
    with psycopg.connect(beside.ledger) as db:
        ((end,),) = db.execute(passed).fetchall()
    for what in ("from offset 0 again", "with its state lost"):
        beside.kill()
        if what == "with its state lost":
            fresh_ledger(system)
        else:
            with psycopg.connect(beside.ledger) as db:
                db.execute("DELETE FROM offsets")
        group = f"{beside.risk.environment['RISK_GROUP']}-{what[:4]}"
        beside.accounting.start("run")
        beside.risk.start("worker", "-l", "warn", RISK_GROUP=group)

        def read_again() -> bool:
            try:
                with psycopg.connect(beside.ledger) as db:
                    return bool(db.execute(passed).fetchall()[0][0] == end)
            except psycopg.errors.UndefinedTable:
                return False

        wait("everything is read again", read_again)
        lines.check(f"accounting, {what}, ends the same", beside.booked() == before, f"{len(before)} entries")
        right = wait("the view of risk is right", lambda: risk_is_right(desk, beside))
        lines.check(f"risk, {what}, ends the same", right, f"{len(beside.positions())} positions")


if __name__ == "__main__":
    main(drill)
