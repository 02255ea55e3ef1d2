"""Positions and orders that no close ended, as the operator's role: what is written, published, refused, done once.

Positions 1, 5 and 6 have no close; that of 2 waits for its order, that of 3 works at the broker, 4 is retryable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

import devstack
from broker_simulator.control import Behaviour, NeverFill, PositionSpec
from broker_simulator.process import SimulatorProcess
from closectl.import_positions import import_positions
from closectl.positions_file import read_positions
from closectl.verifying.report import Finding, Looked
from closectl.verifying.run import check_database
from closeflow.contracts.position_event import PositionEvent
from closeflow.domain.model import BrokerStatus
from closeflow.storage.core.engine import make_engine
from closeflow.storage.verify.snapshot import snapshot
from tests.closectl.running import ROLE, Done, closectl
from tests.closectl.seeding import ACCOUNT, FILE, Closes, order_id
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database
from tests.storage.seeding import Owner, owner


@pytest.fixture(scope="module")
async def database(stack: devstack.Stack, template: str) -> AsyncIterator[OnTestStack]:
    with fresh_database(stack, template) as made:
        engine = make_engine(made.admin_dsn, pool_size=3, application_name="closeflow-tests")
        closes = Closes(engine)
        await import_positions(engine, read_positions(FILE.splitlines()), broker="alpaca")
        for position_id in (2, 3, 4):
            await closes.accept(position_id)
        for position_id in (3, 4):
            await closes.submit(position_id)
        await closes.state(3, BrokerStatus.NEW, cum="0")
        await closes.state(4, BrokerStatus.CANCELED, cum="0")
        await engine.dispose()
        yield made


@pytest.fixture(scope="module")
def db(database: OnTestStack) -> Iterator[Owner]:
    with owner(database.admin_dsn) as connection:
        yield connection


def one(db: Owner, query: str, *values: object) -> tuple[Any, ...]:
    row = db.execute(query.encode(), values).fetchone()
    assert row is not None
    return row


def act(database: OnTestStack, *arguments: str, **settings: str) -> Done:
    said = ("--reason", "the broker confirms", "--by", "ann")
    return closectl(*arguments, *said, postgres_dsn=database.dsn(ROLE), **settings)


def end(database: OnTestStack, position_id: int, ending: str, quantity: str, *more: str) -> Done:
    return act(database, "positions", "end", str(position_id), "--as", ending, "--if-quantity", quantity, *more)


def published(db: Owner, position_id: int) -> list[PositionEvent]:
    query = (
        "SELECT payload FROM outbox_events WHERE position_id = %s AND topic = 'position-events' ORDER BY occurred_at"
    )
    return [PositionEvent.model_validate(row[0]) for row in db.execute(query.encode(), (position_id,)).fetchall()]


def assert_invariants_hold(database: OnTestStack) -> None:
    async def look() -> list[Finding]:
        engine = make_engine(database.admin_dsn, pool_size=1, application_name="closeflow-tests")
        async with snapshot(engine) as tx:
            _, findings = await check_database(tx)
        await engine.dispose()
        return list(findings)

    findings = asyncio.run(look())
    assert [one for part in findings if isinstance(part, Looked) for one in part.violations] == []


@pytest.mark.parametrize(
    ("position_id", "ending", "quantity", "close"),
    [
        (1, "expired", "10", None),
        (2, "assigned", "10", ("completed", "assigned")),
        (4, "exercised", "7", ("completed", "exercised")),
        (5, "delisted", "3", None),
        (6, "reorganized", "0.75", None),
    ],
)
def test_a_position_ends_once_for_a_reason_of_its_own(
    database: OnTestStack, db: Owner, position_id: int, ending: str, quantity: str, close: tuple[str, str] | None
) -> None:
    before = len(published(db, position_id))
    look = end(database, position_id, ending, quantity)
    what = f"position {position_id}: quantity {quantity} -> 0, it is closed"
    assert look.stdout == f"would be: {what}\nnothing was done; repeat it with --yes\n"
    position = "SELECT status, quantity, version FROM positions WHERE id = %s"
    assert one(db, position, position_id)[:2] != ("closed", 0)
    other = end(database, position_id, ending, "8", "--yes")
    assert (other.exit_code, other.stdout) == (1, "")
    assert f"position {position_id} has {quantity}, not 8" in other.stderr

    done = end(database, position_id, ending, quantity, "--yes")
    assert (done.exit_code, done.stdout) == (0, f"{what}\n"), done.stderr
    status, held, version = one(db, position, position_id)
    assert (status, held) == ("closed", 0)
    if close is not None:
        assert one(db, "SELECT status, reason FROM close_requests WHERE position_id = %s", position_id) == close
    again = end(database, position_id, ending, quantity, "--yes")
    assert again.stdout == f"nothing to do: position {position_id} has 0, and its last adjustment was this one\n"

    news = published(db, position_id)[before:]
    (told,) = news
    assert (told.event_type, told.position_version, told.reason) == ("POSITION_CLOSED", version, ending)
    assert told.quantity == 0
    adjusted = "SELECT delta, reason, source, by FROM position_adjustments WHERE position_id = %s"
    written = (-Decimal(quantity), f"{ending}: the broker confirms", "operator", "ann")
    assert db.execute(adjusted.encode(), (position_id,)).fetchall() == [written]
    actions = "SELECT action, by FROM operator_actions WHERE subject = %s"
    assert db.execute(actions.encode(), (str(position_id),)).fetchall() == [("end_position", "ann")]
    assert_invariants_hold(database)


def test_while_an_order_may_fill_neither_it_nor_its_position_is_ended(
    database: OnTestStack, db: Owner, tmp_path: Any
) -> None:
    name = order_id(3)
    at_work = end(database, 3, "assigned", "-5", "--yes")
    assert at_work.exit_code == 1
    assert at_work.stderr == f"closectl: nothing was done: order {name} is new and may still fill 5\n"
    assert act(database, "orders", "end", name, "--yes").exit_code == 1, "the broker has to be asked"

    with SimulatorProcess(tmp_path) as simulator, simulator.control() as control:
        control.set_positions([PositionSpec(symbol="NVDA", asset_type="stock", quantity=Decimal(-5))])
        control.script(Behaviour(execution=NeverFill()))
        keys = {"APCA-API-KEY-ID": simulator.key_id, "APCA-API-SECRET-KEY": simulator.secret_key}
        asking = {
            "broker_url": simulator.url,
            "broker_key_id": simulator.key_id,
            "broker_secret_key": simulator.secret_key,
            "broker_account_id": ACCOUNT,
        }
        with httpx.Client(base_url=simulator.url, headers=keys) as broker:
            ticket = {"symbol": "NVDA", "qty": "5", "side": "buy", "type": "market", "time_in_force": "day"}
            placed = broker.post("/v2/orders", json={**ticket, "client_order_id": name})
            alive = act(database, "orders", "end", name, "--yes", **asking)
            assert (alive.exit_code, alive.stdout) == (1, "")
            assert f"the broker has order {name}: " in alive.stderr
            assert "Cancel it there first" in alive.stderr
            broker.delete(f"/v2/orders/{placed.json()['id']}").raise_for_status()
        look = act(database, "orders", "end", name, **asking)
        what = f"order {name} is canceled with 0; its close is retryable"
        assert look.stdout == f"would be: {what}\nnothing was done; repeat it with --yes\n"
        done = act(database, "orders", "end", name, "--yes", **asking)
        assert (done.exit_code, done.stdout) == (0, f"{what}\n"), done.stderr
        again = act(database, "orders", "end", name, "--yes", **asking)
        assert again.stdout == f"nothing to do: order {name} is canceled, and every fill of it has its name\n"
    assert one(db, "SELECT status FROM orders WHERE client_order_id = %s", name) == ("canceled",)
    assert one(db, "SELECT action, after ->> 'at_broker' FROM operator_actions WHERE subject = %s", name) == (
        "end_order",
        "canceled",
    )

    assert end(database, 3, "assigned", "-5", "--yes").exit_code == 0
    assert one(db, "SELECT status, reason FROM close_requests WHERE position_id = 3") == ("completed", "assigned")
    assert [(e.event_type, e.reason) for e in published(db, 3)][-1] == ("POSITION_CLOSED", "assigned")
    assert_invariants_hold(database)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("positions", "end", "99", "--as", "expired", "--if-quantity", "1"), 1, "there is no position 99"),
        (("positions", "end", "1", "--as", "vanished", "--if-quantity", "1"), 2, "vanished"),
        (("positions", "end", "1", "--as", "expired"), 2, "--if-quantity"),
        (("positions", "end", "1", "--if-quantity", "1"), 2, "--as"),
        (("orders", "end", order_id(3)), 1, "settings are not set: CLOSECTL_BROKER_URL"),
        (("orders", "end", "mine"), 1, "there is no order mine"),
    ],
)
def test_what_cannot_be_ended_is_told(database: OnTestStack, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = act(database, *arguments)
    assert (done.exit_code, done.stdout) == (code, ""), done
    assert told in done.stderr
