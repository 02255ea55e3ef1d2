"""Rows to domain data and back: the one place that knows which column holds which field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from closeflow.domain.model import (
    ZERO,
    AssetType,
    Charge,
    CloseRequest,
    ExecKind,
    Execution,
    Order,
    OrderStatus,
    OrderType,
    Position,
    PositionStatus,
    RejectClass,
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
from closeflow.storage.core.statements import Row


def position(row: Row) -> Position:
    """A row of `positions`."""
    return Position(
        id=row["id"],
        account_id=row["account_id"],
        symbol=row["symbol"],
        asset_type=AssetType(row["asset_type"]),
        multiplier=row["multiplier"],
        currency=row["currency"],
        opening_quantity=row["opening_qty"],
        quantity=row["quantity"],
        status=PositionStatus(row["status"]),
        version=row["version"],
        active_close_request_id=row["active_close_request_id"],
        closed_at=row["closed_at"],
        reopened_at=row["reopened_at"],
        overfill_of=row["overfill_of"],
        exposure_unproven=row["exposure_unproven"],
    )


def position_row(one: Position) -> dict[str, object]:
    """The columns of a position that services change."""
    return {
        "quantity": one.quantity,
        "status": one.status,
        "active_close_request_id": one.active_close_request_id,
        "closed_at": one.closed_at,
        "reopened_at": one.reopened_at,
        "exposure_unproven": one.exposure_unproven,
        "version": one.version,
    }


def request(row: Row) -> CloseRequest:
    """A row of `close_requests`."""
    return CloseRequest(
        id=row["id"],
        position_id=row["position_id"],
        account_id=row["account_id"],
        idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        requested_by=row["requested_by"],
        requested_reason=row["requested_reason"],
        status=RequestStatus(row["status"]),
        reason=row["reason"],
        symbol=row["symbol"],
        side=Side(row["side"]),
        asset_type=AssetType(row["asset_type"]),
        target_quantity=row["target_qty"],
        filled_quantity=row["filled_qty"],
        attempt=row["attempt"],
        retry_count=row["retry_count"],
        max_retries=row["max_retries"],
        order_type=OrderType(row["order_type"]),
        limit_price=row["limit_price"],
        max_slippage_bps=row["max_slippage_bps"],
        time_in_force=TimeInForce(row["time_in_force"]),
        working_timeout_s=row["working_timeout_s"],
        deadline_at=row["deadline_at"],
        next_attempt_at=row["next_attempt_at"],
        deferred_since=row["deferred_since"],
        emission=row["emission"],
        auto_retry=row["auto_retry"],
        frozen_reason=row["frozen_reason"],
        cancel_requested_at=row["cancel_requested_at"],
        traceparent=row["traceparent"],
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        completed_at=row["completed_at"],
    )


def request_row(one: CloseRequest) -> dict[str, object]:
    """Every column of a close request but those that the database sets; used for the insert and, where they changed,
    the update."""
    return {
        "id": one.id,
        "position_id": one.position_id,
        "account_id": one.account_id,
        "idempotency_key": one.idempotency_key,
        "fingerprint": one.fingerprint,
        "requested_by": one.requested_by,
        "requested_reason": one.requested_reason,
        "status": one.status,
        "reason": one.reason,
        "symbol": one.symbol,
        "side": one.side,
        "asset_type": one.asset_type,
        "target_qty": one.target_quantity,
        "filled_qty": one.filled_quantity,
        "attempt": one.attempt,
        "retry_count": one.retry_count,
        "max_retries": one.max_retries,
        "order_type": one.order_type,
        "limit_price": one.limit_price,
        "max_slippage_bps": one.max_slippage_bps,
        "time_in_force": one.time_in_force,
        "working_timeout_s": one.working_timeout_s,
        "deadline_at": one.deadline_at,
        "next_attempt_at": one.next_attempt_at,
        "deferred_since": one.deferred_since,
        "emission": one.emission,
        "auto_retry": one.auto_retry,
        "frozen_reason": one.frozen_reason,
        "cancel_requested_at": one.cancel_requested_at,
        "traceparent": one.traceparent,
        "created_at": one.created_at,
        "submitted_at": one.submitted_at,
        "completed_at": one.completed_at,
    }


def order(
    row: Row,
    *,
    executions: Iterable[Execution],
    aliases: Mapping[str, str],
    withheld: Iterable[Execution] = (),
    charges: Iterable[Charge] = (),
    statements: Iterable[Statement],
    sends: Iterable[Send],
) -> Order:
    """A row of `orders` with its facts from their own tables; derived figures are taken as they were stored."""
    executions = tuple(executions)
    named = {*aliases, *(one.exec_id for one in executions)}
    return Order(
        client_order_id=row["client_order_id"],
        close_request_id=row["close_request_id"],
        attempt=row["attempt"],
        position_id=row["position_id"],
        account_id=row["account_id"],
        symbol=row["symbol"],
        side=Side(row["side"]),
        quantity=row["quantity"],
        order_type=OrderType(row["order_type"]),
        limit_price=row["limit_price"],
        time_in_force=TimeInForce(row["time_in_force"]),
        quote=row["quote"],
        status=OrderStatus(row["status"]),
        broker_order_id=row["broker_order_id"],
        executed_quantity=row["executed_qty"],
        stated_cum_quantity=row["stated_cum_qty"],
        average_price=row["avg_price"],
        broker_update_seq=row["broker_update_seq"],
        last_broker_update_at=row["last_broker_update_at"],
        not_found_count=row["reconcile_not_found_count"],
        next_send_at=row["next_send_at"],
        cancel_requested_at=row["cancel_requested_at"],
        reject_code=row["reject_code"],
        reject_class=RejectClass(row["reject_class"]) if row["reject_class"] else None,
        created_at=row["created_at"],
        executions=executions,
        aliases=aliases,
        charges=tuple(charges),
        withheld=tuple(one for one in withheld if one.exec_id not in named),
        statements=tuple(statements),
        sends=tuple(sends),
    )


def order_row(one: Order) -> dict[str, object]:
    """The columns of an order's own row; its facts have rows of their own."""
    return {
        "client_order_id": one.client_order_id,
        "close_request_id": one.close_request_id,
        "attempt": one.attempt,
        "position_id": one.position_id,
        "account_id": one.account_id,
        "symbol": one.symbol,
        "side": one.side,
        "quantity": one.quantity,
        "order_type": one.order_type,
        "limit_price": one.limit_price,
        "time_in_force": one.time_in_force,
        "quote": one.quote,
        "status": one.status,
        "broker_order_id": one.broker_order_id,
        "executed_qty": one.executed_quantity,
        "stated_cum_qty": one.stated_cum_quantity,
        "avg_price": one.average_price,
        "broker_update_seq": one.broker_update_seq,
        "last_broker_update_at": one.last_broker_update_at,
        "reconcile_not_found_count": one.not_found_count,
        "next_send_at": one.next_send_at,
        "cancel_requested_at": one.cancel_requested_at,
        "reject_code": one.reject_code,
        "reject_class": one.reject_class,
        "created_at": one.created_at,
    }


def execution(row: Row) -> Execution:
    """Of a row of books' facts query, like `statement` and `send`; its `at` and `source` mean what the fact has."""
    return Execution(
        broker=row["broker"],
        exec_id=row["exec_id"],
        client_order_id=row["client_order_id"],
        side=Side(row["side"]),
        quantity=row["quantity"] or ZERO,
        price=row["price"] or ZERO,
        cum_quantity=row["cum_qty"],
        broker_seq=row["broker_seq"],
        occurred_at=row["at"],
        source=UpdateSource(row["source"]),
        kind=ExecKind(row["kind"]),
        ref_exec_id=row["ref_exec_id"],
    )


def execution_row(one: Execution, *, order: Order) -> dict[str, object]:
    """A row of `executions`, which is inserted once and never changed."""
    return {
        "broker": one.broker,
        "account_id": order.account_id,
        "exec_id": one.exec_id,
        "client_order_id": order.client_order_id,
        "position_id": order.position_id,
        "kind": one.kind,
        "ref_exec_id": one.ref_exec_id,
        "side": one.side,
        "quantity": one.quantity or None,
        # A bust may know neither; a trade may be for nothing.
        "price": (one.price or None) if one.kind is ExecKind.BUST else one.price,
        "cum_qty": one.cum_quantity,
        "broker_seq": one.broker_seq,
        "occurred_at": one.occurred_at,
        "source": one.source,
    }


def withheld_row(one: Execution, *, order: Order) -> dict[str, object]:
    """A row of `withheld_executions`: a trade of which it is not clear whether it is new."""
    row = execution_row(one, order=order)
    return {name: value for name, value in row.items() if name not in ("position_id", "kind", "ref_exec_id")}


def charge(row: Row) -> Charge:
    """A charge of a row of books' facts query, which has a column for each of its values under another's name."""
    return Charge(
        broker=row["broker"],
        charge_id=row["kind"],
        exec_id=row["exec_id"],
        commission=row["quantity"],
        fees=row["price"],
        currency=row["side"] or None,
        occurred_at=row["answered_at"],
        source=UpdateSource(row["source"]),
    )


def charge_row(one: Charge, *, order: Order) -> dict[str, object]:
    """A row of `execution_charges`, which is inserted once and never changed."""
    return {
        "broker": one.broker,
        "account_id": order.account_id,
        "charge_id": one.charge_id,
        "exec_id": one.exec_id,
        "client_order_id": order.client_order_id,
        "commission": one.commission,
        "fees": one.fees,
        "currency": one.currency,
        "occurred_at": one.occurred_at,
        "source": one.source,
    }


def statement(row: Row) -> Statement:
    """A row of `order_statements`."""
    return Statement(
        kind=StatementKind(row["kind"]),
        stated_at=row["at"],
        heard_at=row["answered_at"],
        source=row["source"],
        broker_seq=row["broker_seq"],
        cum_quantity=row["cum_qty"],
        leaves_quantity=row["leaves_qty"],
        detail=(row["detail"] or {}).get("reason"),
    )


def statement_row(one: Statement, *, order: Order) -> dict[str, object]:
    """The one row that an order has of each kind of statement."""
    return {
        "client_order_id": order.client_order_id,
        "kind": one.kind,
        "broker_order_id": order.broker_order_id,
        "broker_seq": one.broker_seq,
        "cum_qty": one.cum_quantity,
        "leaves_qty": one.leaves_quantity,
        "stated_at": one.stated_at,
        "heard_at": one.heard_at,
        "source": one.source,
        "detail": {"reason": one.detail} if one.detail else None,
    }


def send(row: Row) -> Send:
    """A row of `order_sends`."""
    return Send(
        kind=SendKind(row["kind"]),
        n=row["n"],
        sender=row["source"],
        lease_until=row["lease_until"],
        started_at=row["at"],
        answered_at=row["answered_at"],
        answer=SendAnswer(row["answer"]) if row["answer"] else None,
        probe=row["detail"]["probe"],
    )


def send_row(one: Send, *, order: Order) -> dict[str, object]:
    """One send of an order; `(client_order_id, kind, n)` names it."""
    return {
        "client_order_id": order.client_order_id,
        "kind": one.kind,
        "n": one.n,
        "sender": one.sender,
        "lease_until": one.lease_until,
        "started_at": one.started_at,
        "answered_at": one.answered_at,
        "answer": one.answer,
        "probe": one.probe,
    }
