"""What an operator adds to the facts, as the operator's role: lost orders, adjustments, fills without a name.

Order 1 is of unknown fate, the close of 2 was given up with its order unknown, 3 works, 4 has a gap.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import devstack
from broker_simulator.control import PositionSpec
from broker_simulator.process import SimulatorProcess
from closectl.import_positions import import_positions
from closectl.positions_file import read_positions
from closeflow.domain.model import BrokerStatus
from closeflow.storage.core.engine import make_engine
from tests.closectl.running import ROLE, Done, closectl
from tests.closectl.seeding import ACCOUNT, FILE, REQUESTS, Closes, order_id
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database
from tests.storage.seeding import Owner, owner

HELD = {"AAPL": 10, "MSFT": 10, "NVDA": -5, "AMZN": 3}
UNKNOWN = """
    UPDATE order_sends SET answer = NULL, answered_at = NULL, started_at = now() - interval '100 s',
           lease_until = now() - interval '70 s' WHERE client_order_id = ANY(%s);
    UPDATE orders SET status = 'submit_unknown', reconcile_not_found_count = 5 WHERE client_order_id = ANY(%s)"""
GIVEN_UP = """
    UPDATE close_requests SET status = 'failed', reason = 'submit_unknown' WHERE position_id = 2;
    UPDATE positions SET status = 'close_failed', active_close_request_id = NULL, exposure_unproven = true
    WHERE id = 2"""


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator at a database of the test's own, and the broker behind it."""

    database: OnTestStack
    simulator: SimulatorProcess
    db: Owner

    def act(self, *arguments: str, **settings: str) -> Done:
        said = ("--reason", "the broker confirms", "--by", "ann")
        return closectl(*arguments, *said, postgres_dsn=self.database.dsn(ROLE), **settings)

    def asking(self, *arguments: str) -> Done:
        """The same, with the broker to ask."""
        return self.act(
            *arguments,
            broker_url=self.simulator.url,
            broker_key_id=self.simulator.key_id,
            broker_secret_key=self.simulator.secret_key,
            broker_account_id=ACCOUNT,
        )

    def one(self, query: str, *values: object) -> tuple[Any, ...]:
        row = self.db.execute(query.encode(), values).fetchone()
        assert row is not None
        return row

    def recorded(self, subject: object) -> list[tuple[Any, ...]]:
        query = "SELECT action, by, reason, before, after FROM operator_actions WHERE subject = %s ORDER BY id"
        return self.db.execute(query.encode(), (str(subject),)).fetchall()


@pytest.fixture(scope="module")
async def database(stack: devstack.Stack, template: str) -> AsyncIterator[OnTestStack]:
    with fresh_database(stack, template) as made:
        engine = make_engine(made.admin_dsn, pool_size=3, application_name="closeflow-tests")
        closes = Closes(engine)
        await import_positions(engine, read_positions(FILE.splitlines()), broker="alpaca")
        for position_id in (1, 2, 3, 4):
            await closes.accept(position_id)
            await closes.submit(position_id)
        await closes.state(3, BrokerStatus.NEW, cum="0")
        await closes.state(4, BrokerStatus.CANCELED, cum="4")
        await engine.dispose()
        with owner(made.admin_dsn) as db:
            unknown = [order_id(1), order_id(2)]
            db.execute(UNKNOWN.replace("%s", f"'{{{','.join(unknown)}}}'").encode())
            db.execute(GIVEN_UP.encode())
            db.execute(
                "INSERT INTO senders (instance_id, host, pid, last_seen_at) VALUES"
                " ('sub-1', 'h1', 7, now() - interval '1 min')"
            )
        yield made


@pytest.fixture(scope="module")
def desk(database: OnTestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory: Path = tmp_path_factory.mktemp("broker")
    with SimulatorProcess(directory) as simulator, simulator.control() as control, owner(database.admin_dsn) as db:
        held = [PositionSpec(symbol=one, asset_type="stock", quantity=Decimal(some)) for one, some in HELD.items()]
        control.set_positions(held)
        yield Desk(database, simulator, db)


def test_an_order_is_lost_only_on_the_whole_evidence(desk: Desk) -> None:
    lost = ("orders", "lost", order_id(1))
    alone = desk.act(*lost, "--yes")
    assert alone.exit_code == 1
    assert f"order {order_id(1)}: broker asked: settings are not set: CLOSECTL_BROKER_URL" in alone.stderr

    refused = desk.asking(*lost, "--yes")
    assert refused.exit_code == 1
    assert [line.split(": ")[1] for line in refused.stderr.splitlines()[1:]] == ["senders exited", "not found"]
    assert "`closectl senders exited sub-1`" in refused.stderr
    assert desk.act("senders", "exited", "sub-1").exit_code == 0
    early = desk.asking(*lost, "--yes")
    assert early.stderr.startswith(f"closectl: nothing was done: order {order_id(1)}: not found: ")
    assert "s after the last lease or exit (needed: 5 times, 60 s)" in early.stderr

    desk.db.execute("UPDATE senders SET exited_at = now() - interval '61 s'")
    status = "SELECT o.status, r.status, p.status FROM orders o JOIN close_requests r ON r.id = o.close_request_id"
    status += " JOIN positions p ON p.id = o.position_id WHERE o.client_order_id = %s"
    look = desk.asking(*lost)
    assert look.exit_code == 0
    assert f"would be: order {order_id(1)} is lost; position 1 is close_retryable" in look.stdout
    assert desk.one(status, order_id(1)) == ("submit_unknown", "submitted", "closing")
    assert desk.recorded(order_id(1)) == []

    done = desk.asking(*lost, "--yes")
    assert done.exit_code == 0, done.stderr
    assert desk.one(status, order_id(1)) == ("lost", "retryable", "close_retryable")
    statement = "SELECT source, detail ->> 'reason' FROM order_statements WHERE client_order_id = %s AND kind = 'lost'"
    assert desk.one(statement, order_id(1)) == ("operator", "the broker confirms")
    ((action, by, reason, before, after),) = desk.recorded(order_id(1))
    assert (action, by, reason) == ("declare_lost", "ann", "the broker confirms")
    assert before[f"order {order_id(1)}"]["status"] == "submit_unknown"
    assert any(point.startswith("position: the broker holds 10 AAPL") for point in after["evidence"][order_id(1)])

    again = desk.asking(*lost, "--yes")
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (
        0,
        f"nothing to do: order {order_id(1)} is lost already",
    )


def test_a_position_is_freed_by_declaring_lost_what_keeps_it(desk: Desk) -> None:
    desk.db.execute("UPDATE senders SET exited_at = now() - interval '61 s'")
    shown = desk.asking("positions", "override", "2", "--json")
    assert shown.exit_code == 0, shown.stderr
    assert {(one["order"], one["holds"]) for one in json.loads(shown.stdout)} == {(order_id(2), True)}
    state = "SELECT status, exposure_unproven FROM positions WHERE id = 2"
    assert desk.one(state) == ("close_failed", True)
    assert desk.asking("positions", "override", "2", "--yes").exit_code == 0
    assert desk.one(state) == ("close_failed", False)
    assert desk.one("SELECT status FROM orders WHERE position_id = 2") == ("lost",)
    assert desk.recorded(2)[0][0] == "override_exposure"
    again = desk.asking("positions", "override", "2", "--yes")
    assert again.stdout == "nothing to do: position 2 has no unproven exposure\n"
    at_work = desk.asking("positions", "override", "3", "--yes")
    assert (at_work.exit_code, "use `closectl orders lost`" in at_work.stderr) == (1, True)


def test_an_adjustment_is_shown_then_made_once(desk: Desk) -> None:
    adjust = ("positions", "adjust", "3", "--delta", "2")
    look = desk.act(*adjust)
    assert look.stdout == (
        f"would be: position 3: quantity -5 -> -3, it is closing; the cancel of order {order_id(3)} is asked for\n"
        "nothing was done; repeat it with --yes\n"
    )
    assert desk.act(*adjust, "--yes").exit_code == 2, "it needs the quantity that was seen"
    done = desk.act(*adjust, "--if-quantity", "-5", "--yes")
    assert done.exit_code == 0, done.stderr
    position = "SELECT quantity, version, (SELECT count(*) FROM position_adjustments WHERE position_id = 3), "
    position += "(SELECT sum(delta) FROM position_adjustments WHERE position_id = 3) FROM positions WHERE id = 3"
    quantity, version, rows, total = desk.one(position)
    assert (quantity, rows, total) == (-3, 1, 2)
    order = "SELECT status, cancel_requested_at IS NOT NULL FROM orders WHERE client_order_id = %s"
    assert desk.one(order, order_id(3)) == ("pending_cancel", True)
    event = "SELECT position_version, payload ->> 'quantity' FROM outbox_events WHERE position_id = 3"
    event += " AND topic = 'position-events' ORDER BY position_version DESC LIMIT 1"
    assert desk.one(event) == (version, "-3")
    kinds = "SELECT array_agg(kind ORDER BY kind) FROM incidents WHERE position_id = 3"
    assert desk.one(kinds) == (["exposure_above_owed", "position_changed_outside"],)

    again = desk.act(*adjust, "--if-quantity", "-5", "--yes")
    assert again.stdout == "nothing to do: position 3 has -3, and its last adjustment was this one\n"
    assert desk.one(position)[2] == 1
    assert [one[0] for one in desk.recorded(3)] == ["adjust"]
    other = desk.act("positions", "adjust", "3", "--delta", "1", "--if-quantity", "-5", "--yes")
    assert (other.exit_code, "position 3 has -3, not -5" in other.stderr) == (1, True)


def test_a_fill_without_a_name_is_named_once(desk: Desk) -> None:
    name = ("orders", "execution", order_id(4), "--exec-id", "paper-1", "--quantity", "4", "--price", "99.5")
    assert desk.act(*name).stdout.startswith("would be: booked 4 @ 99.5; 0 is still not named\n")
    assert desk.act(*name, "--yes").exit_code == 0
    booked = "SELECT source, quantity, price FROM executions WHERE exec_id = 'paper-1'"
    assert desk.one(booked) == ("operator", Decimal(4), Decimal("99.5"))
    states = "SELECT r.status, r.filled_qty, p.quantity FROM close_requests r JOIN positions p ON p.id = r.position_id"
    assert desk.one(f"{states} WHERE r.id = %s", REQUESTS[4]) == ("retryable", 4, 3)
    events = "SELECT count(*) FROM outbox_events WHERE position_id = 4 AND event_type = 'EXECUTION_RECORDED'"
    assert desk.one(events) == (1,)
    assert desk.act(*name, "--yes").stdout == "nothing to do: execution paper-1 is booked: 4 @ 99.5\n"
    more = desk.act(*name[:4], "paper-2", *name[5:], "--yes")
    assert (more.exit_code, "an operator's execution only closes a gap" in more.stderr) == (1, True)
    assert [one[0] for one in desk.recorded(order_id(4))] == ["name_execution"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("orders", "lost", order_id(4, 7)), 1, f"there is no order {order_id(4, 7)}"),
        (("orders", "lost", "mine"), 1, "there is no order mine"),
        (("positions", "override", "99"), 1, "there is no position 99"),
        (("positions", "adjust", "99", "--delta", "1"), 1, "there is no position 99"),
        (("positions", "adjust", "1", "--delta", "ten"), 2, "ten"),
        (("positions", "adjust", "1", "--delta", "1e15"), 2, "1e15"),
        (("orders", "execution", "x", "--exec-id", "e", "--quantity", "1", "--price", "0"), 1, "there is no order x"),
        (("orders", "execution", "x", "--exec-id", "e", "--quantity", "0", "--price", "0"), 2, "greater than 0"),
        (("orders", "execution", "x", "--exec-id", "e", "--quantity", "1", "--price", "-1"), 2, "below 0"),
    ],
)
def test_what_cannot_be_done_is_told(desk: Desk, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = desk.act(*arguments)
    assert (done.exit_code, done.stdout) == (code, ""), done
    assert told in done.stderr
