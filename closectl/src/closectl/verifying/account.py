"""Ask the broker what it has of ours, and compare (invariants 7 and 16)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from closectl.verifying.report import Looked, looked
from closeflow.broker.protocol import Broker, BrokerUnavailable, Positions
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import BrokerUpdate, ExecKind, ExecType
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.compared_state import State

BEFORE: Final = timedelta(minutes=5)
"""The broker's clock may differ from ours by less than this."""
BROKER: Final = "broker"

_CHANGES: Final = frozenset({ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT})

Wrong = Iterator[tuple[str, str]]
Fill = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class BrokerView:
    """What the broker says of one account: its open orders, its executions, the signed quantities it holds."""

    account_id: str
    open_orders: Sequence[BrokerUpdate]
    executions: Sequence[BrokerUpdate]
    positions: Positions


async def ask_broker(broker: Broker, state: State) -> BrokerView:
    """Read everything since our first order of the account. Raises BrokerUnavailable."""
    orders = await broker.open_orders()
    if orders.unreadable:
        raise BrokerUnavailable(f"its open orders {', '.join(orders.unreadable)} cannot be read")
    first = min((one.created_at for one in state.orders if one.account_id == broker.account_id), default=state.at)
    executions: list[BrokerUpdate] = []
    page: str | None = None
    while True:
        found = await broker.executions(after=first - BEFORE, page=page)
        if found.unnamed:
            raise BrokerUnavailable(f"it does not say of which orders its executions {', '.join(found.unnamed)} are")
        executions += found.updates
        page = found.next_page
        if page is None:
            break
    return BrokerView(broker.account_id, orders.updates, executions, await broker.positions())


def check_account(state: State, view: BrokerView) -> list[Looked]:
    """The view was read after the state. An order that is not settled and a position that is busy are left out."""
    ours = [one for one in (*view.open_orders, *view.executions) if parse_client_order_id(one.client_order_id)]
    named = {one.client_order_id for one in ours}
    settled = {one.client_order_id for one in state.orders if one.settled and one.account_id == view.account_id}
    held = {
        one.symbol
        for one in state.positions
        if one.account_id == view.account_id and view.positions.tell_of(one.symbol)
    }
    busy = {one.symbol for one in state.positions if one.account_id == view.account_id and one.busy}
    return [
        looked(7, BROKER, "open or filled orders", len(named), _unknown_orders(state, named)),
        looked(16, BROKER, "settled orders", len(settled), _fills(state, view, settled)),
        looked(16, BROKER, "symbols", len(held - busy), _positions(state, view, held - busy)),
    ]


def _unknown_orders(state: State, named: Collection[str]) -> Wrong:
    known = {one.client_order_id: one for one in state.orders}
    for name in sorted(named):
        if name not in known:
            yield f"order {name}", "is at the broker; the database has no such order"
        elif not known[name].sent:
            yield f"order {name}", f"is at the broker; the database has it as {known[name].status}, without a send"


def _fills(state: State, view: BrokerView, settled: Collection[str]) -> Wrong:
    """What stands of each order, as (quantity, price): the broker's two feeds may name one fill differently. A broker
    may list no busts and corrections at all: then what it lists is compared with what there was before them."""
    standing: defaultdict[str, list[Fill]] = defaultdict(list)
    trades: defaultdict[str, list[Fill]] = defaultdict(list)
    for one in state.executions:
        if one.quantity is None or one.price is None:
            continue
        if one.stands:
            standing[one.client_order_id].append((one.quantity, one.price))
        if one.kind is ExecKind.TRADE:
            trades[one.client_order_id].append((one.quantity, one.price))
    stated, reversing = _stated(view)
    for name in sorted(settled):
        ours, theirs = sorted(standing[name]), sorted(stated[name].values())
        if ours != theirs and (name in reversing or sorted(trades[name]) != theirs):
            yield f"order {name}", f"the broker executed {_told(theirs)}, booked is {_told(ours)}"


def _stated(view: BrokerView) -> tuple[defaultdict[str, dict[str, Fill]], set[str]]:
    """By order what its executions are now, by their ids, and the orders of which one was changed."""
    stated: defaultdict[str, dict[str, Fill]] = defaultdict(dict)
    changes = {one.exec_id: one for one in view.executions if one.exec_type in _CHANGES}.values()
    for update in view.executions:
        if update.exec_id is None or update.exec_type is ExecType.TRADE_CANCEL:
            continue
        if update.last_quantity is not None and update.last_price is not None:
            stated[update.client_order_id][update.exec_id] = (update.last_quantity, update.last_price)
    for update in changes:
        if update.exec_ref_id is not None:
            stated[update.client_order_id].pop(update.exec_ref_id, None)
    return stated, {one.client_order_id for one in changes}


def _told(fills: Sequence[Fill]) -> str:
    return ", ".join(f"{decimal_text(quantity)} @ {decimal_text(price)}" for quantity, price in fills) or "nothing"


def _positions(state: State, view: BrokerView, symbols: Collection[str]) -> Wrong:
    ours: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in state.positions:
        if one.account_id == view.account_id:
            ours[one.symbol] += one.quantity
    for symbol in sorted(symbols):
        theirs = view.positions.held.get(symbol, Decimal(0))
        if theirs != ours[symbol]:
            yield (
                f"{view.account_id} {symbol}",
                f"the broker holds {decimal_text(theirs)}, the positions make {decimal_text(ours[symbol])}",
            )
