"""examples/accounting as a team runs it: killed, given records twice, from the first record, without its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from closeflow.contracts import ExecutionEvent, encode
from tests.conftest import with_database
from tests.examples.consuming import Example, Log, Sent, changed, copied, execution_events, headers_of, records, until

if TYPE_CHECKING:
    import devstack

BOOKED: Final = "SELECT event_id::text, net_amount FROM entries ORDER BY event_id"
POSTED: Final = "SELECT account, sum(amount) FROM postings GROUP BY account HAVING sum(amount) <> 0 ORDER BY account"

pytestmark = pytest.mark.timeout(900)  # It starts Python many times, which is most of its time.


@pytest.fixture
async def log(stack: devstack.Stack) -> AsyncIterator[Log]:
    made = Log(stack.kafka_bootstrap_servers, f"accounting-{uuid4().hex[:12]}")
    await made.make()
    yield made
    await made.delete()


@pytest.fixture
def ledger(stack: devstack.Stack) -> Iterator[str]:
    name = f"accounting_{uuid4().hex[:12]}"
    _administer(stack, "CREATE DATABASE {}", name)
    yield with_database(stack.admin_dsn, name)
    _administer(stack, "DROP DATABASE {} WITH (FORCE)", name)


def _administer(stack: devstack.Stack, statement: str, name: str) -> None:
    with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL(statement).format(sql.Identifier(name)))


@pytest.fixture
def example(log: Log, ledger: str, tmp_path: Path) -> Iterator[Example]:
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": log.servers,
        "ACCOUNTING_DSN": ledger,
        "ACCOUNTING_TOPIC": log.topic,
        "ACCOUNTING_GROUP": log.topic,
    }
    with copied("accounting", tmp_path, "accounting.py", settings) as made:
        yield made


def ask(ledger: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(ledger) as db:
        return db.execute(query.encode()).fetchall()


def booked(ledger: str) -> list[tuple[Any, ...]]:
    try:
        return ask(ledger, BOOKED)
    except psycopg.errors.UndefinedTable:
        return []


def wanted(events: list[ExecutionEvent]) -> list[tuple[str, Decimal | None]]:
    return sorted((str(one.event_id), one.net_amount) for one in events)


def sums(events: list[ExecutionEvent]) -> list[tuple[str, Decimal]]:
    """What the accounts have to hold, made from the events by hand."""
    found: dict[str, Decimal] = {}
    for one in {one.event_id: one for one in events}.values():
        commission, fees = one.commission or Decimal(0), one.fees or Decimal(0)
        for account, amount in (
            (f"cash:{one.account_id}", one.cash_amount - commission - fees),
            (f"commission:{one.account_id}", commission),
            (f"fees:{one.account_id}", fees),
            (f"positions:{one.account_id}:{one.symbol}", -one.cash_amount),
        ):
            found[account] = found.get(account, Decimal(0)) + amount
    return sorted((name, amount) for name, amount in found.items() if amount)


def until_booked(example: Example, ledger: str, events: list[ExecutionEvent]) -> None:
    until("everything is booked", lambda: len(booked(ledger)) == len(events), told=example.said)
    assert booked(ledger) == wanted(events)
    assert sorted(ask(ledger, POSTED)) == sums(events)
    balance = example.run("balance")
    assert (balance.returncode, balance.stdout.splitlines()[-1]) == (0, "the books balance"), balance


async def test_the_ledger_is_the_same_after_kills_repetitions_a_replay_and_a_lost_database(
    example: Example, log: Log, ledger: str, stack: devstack.Stack
) -> None:
    events = execution_events(range(1, 121), seed=1)
    first, rest = events[: len(events) // 2], events[len(events) // 2 :]
    await log.send(records(first))
    example.start("run")
    until("some are booked", lambda: booked(ledger), told=example.said)
    example.kill()
    example.start("run")
    await log.send(records(first + rest))  # The first half comes again before the rest.
    until("some of the rest are booked", lambda: len(booked(ledger)) > len(first), told=example.said)
    example.kill()
    example.start("run")
    until_booked(example, ledger, events)

    example.stop()
    with psycopg.connect(ledger) as db:
        db.execute("DELETE FROM offsets")
    example.start("run")
    until("all is read again", lambda: _passed(ledger) == 2 * len(first) + len(rest), told=example.said)
    until_booked(example, ledger, events)

    example.stop()
    name = ledger.rpartition("/")[2]
    _administer(stack, "DROP DATABASE {} WITH (FORCE)", name)
    _administer(stack, "CREATE DATABASE {}", name)
    example.start("run")
    until_booked(example, ledger, events)


def _passed(ledger: str) -> int:
    return int(ask(ledger, "SELECT COALESCE(sum(next_offset), 0) FROM offsets")[0][0])


async def test_what_it_does_not_know_or_believe_is_put_where_a_person_finds_it(
    example: Example, log: Log, ledger: str
) -> None:
    good = execution_events(range(1, 4), seed=2)
    one = next(event for event in good if event.event_type == "EXECUTION_RECORDED")
    other = uuid4()
    v1 = headers_of(ExecutionEvent)
    odd = {
        "wrong_version": Sent("1", encode(one), [("ce_dataschema", b"urn:closeflow:execution-event.v2")]),
        "null_value": Sent("1", None, v1),
        "bad_json": Sent("1", b"{", v1),
        "missing_field": Sent("1", b"{}", v1),
        "bad_value": Sent("1", changed(one, event_id=str(other), exec_id="x", cash_amount="0.01"), v1),
    }
    aside = [
        Sent("1", changed(one, event_id=str(other), exec_id="new", event_type="EXECUTION_MOVED"), v1),
        Sent("1", changed(one, event_id=str(other)), v1),  # One execution under two ids.
        Sent("1", changed(one, fees="9", net_amount=str((one.net_amount or Decimal(0)) - 9)), v1),
    ]
    grown = [Sent(str(one.position_id), changed(one, colour="blue"), v1) for one in good]
    await log.send([*records([one]), *odd.values(), *aside, *grown])
    example.start("run")
    until("all is passed", lambda: booked(ledger) and _passed(ledger) == len(good) + 9, told=example.said)
    assert booked(ledger) == wanted(good)
    dead = await log.dead()
    assert [dict(letter.headers)["dlq_error_class"].decode() for letter in dead] == list(odd)
    assert [letter.value for letter in dead] == [record.value for record in odd.values()]
    found = ask(ledger, 'SELECT error_class, value FROM set_aside ORDER BY "offset"')
    classes = ["unknown_value", "contradiction", "contradiction"]
    assert [(kind, bytes(value)) for kind, value in found] == list(zip(classes, [s.value for s in aside], strict=True))
    balance = example.run("balance")
    assert (balance.returncode, balance.stdout.count("WRONG")) == (1, 3)

    example.stop()
    script = example.directory / example.script
    script.write_text(script.read_text().replace('"EXECUTION_CHARGED"]', '"EXECUTION_CHARGED", "EXECUTION_MOVED"]'))
    assert example.run("retry").returncode == 0
    assert len(booked(ledger)) == len(good) + 1
    assert example.run("balance").stdout.count("WRONG") == 2, "contradictions stay for a person"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "accounting: ACCOUNTING_DSN is not set; README.md has every setting"),
        ([], "say which: run, retry, balance"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    with copied("accounting", tmp_path, "accounting.py", {"ACCOUNTING_DSN": ""}) as example:
        ended = example.run(*arguments)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, said)
