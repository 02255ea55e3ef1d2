"""What the broker shows: its account as the closes left it, with one thing wrong, must be found by its invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from broker_simulator.control import Outage, PositionSpec
from broker_simulator.process import SimulatorProcess
from closectl.broker import Account
from closectl.verifying.account import BrokerView, check_account
from closectl.verifying.report import NotChecked, Violation
from closectl.verifying.run import verify
from closeflow.broker import Positions
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.model import BrokerUpdate, ExecKind, ExecType, OrderType, Side, TimeInForce, UpdateSource
from closeflow.domain.sending.broker_answers import Acknowledged
from closeflow.domain.sending.ticket import Ticket
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.compared_state import State, load_state
from closeflow.storage.verify.snapshot import snapshot
from tests.closectl.seeding import ACCOUNT, order_id

AT: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
HELD: Final = {"NVDA": Decimal(-3), "AMZN": Decimal(7), "TSLA": Decimal(3), "BTC/USD": Decimal("0.75")}
UNKNOWN: Final = "cf-01932f4e8a107c3b9d215f0f7e6a1b22-1"
Change = Callable[[BrokerView], BrokerView]


def said(client_order_id: str, exec_id: str | None = None, quantity: str = "1", price: str = "1") -> BrokerUpdate:
    """An execution; without its id the state of an open order."""
    return BrokerUpdate(
        event_id=UUID(int=1),
        broker="alpaca",
        account_id=ACCOUNT,
        symbol="AAPL",
        client_order_id=client_order_id,
        exec_type=ExecType.TRADE if exec_id else ExecType.ORDER_STATUS,
        side=Side.SELL,
        source=UpdateSource.QUERY,
        transact_time=AT,
        received_at=AT,
        exec_id=exec_id,
        last_quantity=Decimal(quantity) if exec_id else None,
        last_price=Decimal(price) if exec_id else None,
    )


async def account_of(closes: Database) -> tuple[State, BrokerView]:
    """The state, and a broker that agrees with it while its list names each fill differently than its stream."""
    async with snapshot(closes) as tx:
        state = await load_state(tx)
    executions = [
        said(one.client_order_id, f"activity-{one.exec_id}", str(one.quantity), str(one.price))
        for one in state.executions
    ]
    return state, BrokerView(ACCOUNT, [said(order_id(3)), said("somebody-else")], executions, Positions(HELD))


def opened(client_order_id: str) -> Change:
    return lambda view: replace(view, open_orders=[*view.open_orders, said(client_order_id)])


def executed(client_order_id: str) -> Change:
    return lambda view: replace(view, executions=[*view.executions, said(client_order_id, "e-new")])


def holding(symbol: str, quantity: str) -> Change:
    return lambda view: replace(view, positions=Positions({**view.positions.held, symbol: Decimal(quantity)}))


PLANTS: Final[dict[str, tuple[int, str, Change]]] = {
    "open order that the database lacks": (7, f"order {UNKNOWN}", opened(UNKNOWN)),
    "filled order that the database lacks": (7, f"order {UNKNOWN}", executed(UNKNOWN)),
    "execution that is not booked": (16, f"order {order_id(1)}", executed(order_id(1))),
    "execution that the broker does not have": (
        16,
        f"order {order_id(1)}",
        lambda view: replace(view, executions=view.executions[1:]),
    ),
    "position that the broker does not have": (16, "main BTC/USD", holding("BTC/USD", "0")),
    "position that is closed here": (16, "main AAPL", holding("AAPL", "10")),
}


async def test_an_account_that_agrees_breaks_nothing(closes: Database) -> None:
    state, view = await account_of(closes)
    findings = check_account(state, view)
    assert [one.violations for one in findings] == [(), (), ()]
    assert [(one.what, one.count) for one in findings] == [
        ("open or filled orders", 4),
        ("settled orders", 4),
        ("symbols", 4),
    ]


@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_violation_is_found(closes: Database, name: str) -> None:
    invariant, subject, planted = PLANTS[name]
    state, view = await account_of(closes)
    found = [one for part in check_account(state, planted(view)) for one in part.violations]
    assert [(one.invariant, one.subject) for one in found] == [(invariant, subject)]


async def test_a_position_that_may_still_change_is_not_compared(closes: Database) -> None:
    state, view = await account_of(closes)
    findings = check_account(state, holding("NVDA", "-1")(view))
    assert [one.violations for one in findings] == [(), (), ()]


def taken_back(state: State) -> State:
    """Ours, with its first execution busted."""
    first, *others = state.executions
    return replace(state, executions=(replace(first, stands=False), *others))


def busting(view: BrokerView) -> BrokerView:
    first = view.executions[0]
    bust = replace(first, exec_type=ExecType.TRADE_CANCEL, exec_id="bust", exec_ref_id=first.exec_id)
    return replace(view, executions=[*view.executions, replace(bust, last_quantity=None, last_price=None)])


def correcting(view: BrokerView) -> BrokerView:
    first = view.executions[0]
    correct = replace(first, exec_type=ExecType.TRADE_CORRECT, exec_id="correct", exec_ref_id=first.exec_id)
    return replace(view, executions=[*view.executions, replace(correct, last_quantity=Decimal(3))])


def corrected_here(state: State) -> State:
    first, *others = taken_back(state).executions
    now = replace(first, kind=ExecKind.CORRECT, exec_id="c", quantity=Decimal(3), stands=True)
    return replace(state, executions=(first, *others, now))


@pytest.mark.parametrize(
    ("ours", "theirs", "agree"),
    [
        (taken_back, busting, True),
        (corrected_here, correcting, True),
        (taken_back, lambda view: view, True),
        (lambda state: state, busting, False),
        (lambda state: state, correcting, False),
        (taken_back, correcting, False),
    ],
    ids=["bust", "correction", "bust not listed", "bust missed", "correction missed", "bust for a correction"],
)
async def test_what_the_broker_took_back_is_taken_back_here(
    closes: Database, ours: Callable[[State], State], theirs: Change, agree: bool
) -> None:
    state, view = await account_of(closes)
    found = [one for part in check_account(ours(state), theirs(view)) for one in part.violations]
    assert [(one.invariant, one.subject) for one in found] == ([] if agree else [(16, f"order {order_id(1)}")])


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path) as made, made.control() as control:
        control.set_positions([PositionSpec(symbol="AAPL", asset_type="stock", quantity=Decimal(5))])
        control.pin_quote("AAPL", "100", "101")
        yield made


async def test_the_broker_is_asked_for_its_orders_fills_and_positions(
    closes: Database, simulator: SimulatorProcess
) -> None:
    """It has a filled order of our prefix that the database lacks, and none of the executions that are booked."""
    broker = AlpacaBroker(
        base_url=simulator.url,
        market_data_url=simulator.url,
        key_id=simulator.key_id,
        secret_key=simulator.secret_key,
        account_id=ACCOUNT,
    )
    ticket = Ticket(
        client_order_id=UNKNOWN,
        account_id=ACCOUNT,
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(2),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        limit_price=Decimal(100),
    )
    answer = await broker.submit(ticket)
    await broker.aclose()
    assert isinstance(answer, Acknowledged)
    report = await verify(closes, kafka="not asked", account=account_at(simulator.url), wait_s=0)
    found = {(one.invariant, one.subject): one.detail for one in report.violations}
    assert found[(7, f"order {UNKNOWN}")] == "is at the broker; the database has no such order"
    assert found[(16, f"order {order_id(1)}")] == "the broker executed nothing, booked is 4 @ 100.25, 6 @ 100.25"
    assert found[(16, "main AAPL")] == "the broker holds 3, the positions make 0"
    assert not any(isinstance(one, NotChecked) and one.why.startswith("the broker") for one in report.findings)


async def test_one_lost_answer_does_not_hide_the_account(closes: Database, simulator: SimulatorProcess) -> None:
    with simulator.control() as control:
        control.outage(Outage(kind="reset", method="GET", path_prefix="/v2/positions", requests=1))
        report = await verify(closes, kafka="not asked", account=account_at(simulator.url), wait_s=0)
        assert [one.remaining for one in control.outages()] == [0]
    assert (16, "main AAPL") in {(one.invariant, one.subject) for one in report.violations}
    assert not any(isinstance(one, NotChecked) and one.why.startswith("the broker") for one in report.findings)


async def test_a_broker_that_does_not_answer_is_said_not_to_be_checked(closes: Database) -> None:
    report = await verify(closes, kafka="not asked", account=account_at("http://127.0.0.1:1"), wait_s=0)
    why = [one.why for one in report.findings if isinstance(one, NotChecked) and one.why.startswith("the broker")]
    assert len(why) == 2
    assert all("http://127.0.0.1:1 did not answer" in one for one in why)
    assert report.violations == tuple[Violation, ...]()


def account_at(url: str) -> Account:
    simulator = SimulatorProcess
    return Account(
        url=url, key_id=simulator.key_id, secret_key=simulator.secret_key, account_id=ACCOUNT, broker="alpaca"
    )
