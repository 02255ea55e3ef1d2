"""Positions, requests, orders and broker updates for the domain's tests: a long of 100 shares unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid5

from closeflow.domain.account_limits import AccountLimits
from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.close.outcome import Concluded, conclude
from closeflow.domain.ids import NAMESPACE, client_order_id
from closeflow.domain.model import (
    AssetType,
    Book,
    BrokerStatus,
    BrokerUpdate,
    CloseRequest,
    ExecType,
    Execution,
    Order,
    OrderStatus,
    OrderType,
    Position,
    PositionStatus,
    RequestStatus,
    Send,
    SendAnswer,
    SendKind,
    Side,
    Statement,
    StatementKind,
    TimeInForce,
    UpdateSource,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied, Verdict
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.trading_controls import Controls, TradingState

NOW: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
REQUEST_ID: Final = UUID("01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22")
OTHER_ID: Final = UUID("01932f4e-8a10-7c3b-9d21-5f0f7e6a1b33")
ACCOUNT: Final = "PA3XYZ"
BROKER: Final = "alpaca"
POLICY: Final = RetryPolicy()
LIMITS: Final = AccountLimits(
    max_order_quantity=Decimal(1000), max_order_notional=Decimal(1_000_000), submits_per_minute=100
)
CONTROLS: Final = Controls(account_id=ACCOUNT, state=TradingState.ACTIVE, limits=LIMITS)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_position(quantity: int = 100, **changes: Any) -> Position:
    position = Position(
        id=41,
        account_id=ACCOUNT,
        symbol="AAPL",
        asset_type=AssetType.STOCK,
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=Decimal(quantity),
        quantity=Decimal(quantity),
        status=PositionStatus.CLOSING,
        version=5,
        active_close_request_id=REQUEST_ID,
    )
    return replace(position, **changes)


def a_request(target: int = 100, **changes: Any) -> CloseRequest:
    request = CloseRequest(
        id=REQUEST_ID,
        position_id=41,
        account_id=ACCOUNT,
        idempotency_key="k",
        fingerprint="f",
        requested_by="desk",
        status=RequestStatus.SUBMITTED,
        symbol="AAPL",
        side=Side.SELL,
        asset_type=AssetType.STOCK,
        target_quantity=Decimal(target),
        filled_quantity=Decimal(0),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        working_timeout_s=60,
        max_retries=3,
        created_at=NOW,
        submitted_at=NOW,
    )
    return replace(request, **changes)


def a_send(answer: SendAnswer | None = SendAnswer.ACCEPTED, n: int = 1, kind: SendKind = SendKind.SUBMIT) -> Send:
    return Send(
        kind=kind,
        n=n,
        sender="s1",
        lease_until=at(30),
        started_at=NOW,
        answered_at=None if answer is None else at(1),
        answer=answer,
    )


def a_statement(kind: StatementKind, seq: int | None = None, cum: int | None = None, t: float = 0) -> Statement:
    return Statement(
        kind=kind,
        stated_at=at(t),
        source="stream",
        broker_seq=seq,
        cum_quantity=None if cum is None else Decimal(cum),
    )


def an_execution(exec_id: str, quantity: int, cum: int | None = None, **changes: Any) -> Execution:
    execution = Execution(
        broker=BROKER,
        exec_id=exec_id,
        client_order_id=client_order_id(REQUEST_ID, 1),
        side=Side.SELL,
        quantity=Decimal(quantity),
        price=Decimal(10),
        occurred_at=at(2),
        source=UpdateSource.STREAM,
        cum_quantity=None if cum is None else Decimal(cum),
    )
    return replace(execution, **changes)


def an_order(quantity: int = 100, *, attempt: int = 1, request_id: UUID = REQUEST_ID, **changes: Any) -> Order:
    """Derived from the facts it is given, which is how an order is loaded."""
    order = Order(
        client_order_id=client_order_id(request_id, attempt),
        close_request_id=request_id,
        attempt=attempt,
        position_id=41,
        account_id=ACCOUNT,
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(quantity),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        status=OrderStatus.PLANNED,
        created_at=NOW,
        limit_price=Decimal(10),
        sends=(a_send(),),
    )
    return order_status.derive(replace(order, **changes))


def filled(quantity: int = 100, **changes: Any) -> Order:
    one = an_execution(f"e{changes.get('attempt', 1)}", quantity, quantity)
    return an_order(
        quantity, executions=(one,), statements=(a_statement(StatementKind.FILLED, 9, quantity),), **changes
    )


def canceled(quantity: int = 100, done: int = 0, **changes: Any) -> Order:
    executions = (an_execution(f"e{changes.get('attempt', 1)}", done, done),) if done else ()
    return an_order(
        quantity, executions=executions, statements=(a_statement(StatementKind.CANCELED, 9, done),), **changes
    )


def working(quantity: int = 100, done: int = 0, **changes: Any) -> Order:
    executions = (an_execution(f"e{changes.get('attempt', 1)}", done, done),) if done else ()
    changes = {"statements": (a_statement(StatementKind.NEW, 1, 0),), **changes}
    return an_order(quantity, executions=executions, **changes)


def refused(quantity: int = 100, **changes: Any) -> Order:
    return an_order(quantity, statements=(a_statement(StatementKind.REFUSED),), **changes)


def a_book(
    *orders: Order,
    position: Position | None = None,
    requests: Iterable[CloseRequest] | None = None,
    **request_changes: Any,
) -> Book:
    """A position of 100 before any of the orders' executions; its quantity is what is left after them."""
    position = a_position() if position is None else position
    kept = [a_request(**request_changes)] if requests is None else list(requests)
    moved = sum((order_status.signed(order.side, order_status.executed(order)) for order in orders), Decimal(0))
    return Book(
        position=position,
        base_quantity=position.opening_quantity,
        ledger_quantity=position.opening_quantity + moved,
        requests={request.id: request for request in kept},
        orders={order.client_order_id: order for order in orders},
    )


def settled_once(book: Book, *, now: datetime = NOW) -> Concluded:
    """Settle a book whose facts have just changed: before them, the ledger agreed with the position."""
    before = replace(book, ledger_quantity=book.position.quantity)
    return conclude(before, book, now=now, policy=POLICY)


def an_update(exec_type: ExecType, status: BrokerStatus | None = None, **changes: Any) -> BrokerUpdate:
    """What the broker says of the first order. `cum`, `last` and `seq` are short for the usual fields."""
    short = {"cum": "cum_quantity", "last": "last_quantity", "leaves": "leaves_quantity"}
    for name, field in short.items():
        if changes.get(name) is not None:
            changes[field] = Decimal(changes[name])
        changes.pop(name, None)
    if "seq" in changes:
        changes["broker_seq"] = changes.pop("seq")
    update = BrokerUpdate(
        event_id=uuid5(NAMESPACE, repr((exec_type, status, sorted(changes.items(), key=str)))),
        broker=BROKER,
        account_id=ACCOUNT,
        symbol="AAPL",
        client_order_id=client_order_id(REQUEST_ID, 1),
        exec_type=exec_type,
        side=Side.SELL,
        source=UpdateSource.STREAM,
        transact_time=at(2),
        received_at=at(3),
        order_status=status,
        broker_order_id="b-1",
    )
    return replace(update, **changes)


def a_trade(exec_id: str, last: int, cum: int | None = None, **changes: Any) -> BrokerUpdate:
    changes = {"last_price": Decimal(10), **changes}
    return an_update(ExecType.TRADE, exec_id=exec_id, last=last, cum=cum, **changes)


def a_refusal(**changes: Any) -> BrokerUpdate:
    changes = {"broker_order_id": None, "source": UpdateSource.SUBMIT, "reject_code": "40310000", **changes}
    return an_update(ExecType.REJECTED, **changes)


def applied(order: Order, *updates: BrokerUpdate) -> Order:
    """The order after those of the updates that are judged to be applied."""
    for update in updates:
        verdict = judge_update(order, update)
        order = verdict.order if isinstance(verdict, Applied) else order
    return order


def book_after(book: Book, update: BrokerUpdate, *, now: datetime = NOW) -> tuple[Book, Verdict]:
    """One update judged, applied and concluded, as a batch of one is."""
    order = book.orders[update.client_order_id]
    verdict = judge_update(order, update)
    if not isinstance(verdict, Applied):
        return book, verdict
    return conclude(book, apply_update(book, order, verdict), now=now, policy=POLICY).book, verdict
