"""Events as closeflow writes them, of positions and closes that tests make up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from closeflow.contracts import BrokerFillV1, ExecutionEvent, PositionEvent, SubmitOrder

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def close_id(n: int) -> UUID:
    return UUID(int=0x01978F6E_7A1C_7000_8000_000000000000 + n)


def position(version: int, *, of: int = 1, close: int | None = 1, **changes: Any) -> PositionEvent:
    """The position `of` at a version: by default while its close is pending."""
    named: dict[str, Any] = {}
    if close is not None:
        named = {
            "close_request_id": close_id(close),
            "close_request_status": "pending",
            "side": "sell",
            "target_qty": Decimal(10),
            "filled_qty": Decimal(0),
        }
    given = {
        "event_id": UUID(int=of * 1000 + version),
        "event_type": "POSITION_CLOSING",
        "emission": 1,
        "position_id": of,
        "position_version": version,
        "account_id": "A",
        "symbol": "AAPL",
        "asset_type": "stock",
        "position_status": "closing",
        "quantity": Decimal(10),
        "occurred_at": at(version),
        **named,
        **changes,
    }
    return PositionEvent.model_validate(given)


def over(version: int, status: str = "completed", **changes: Any) -> PositionEvent:
    """The position when its close has ended so."""
    left = {"completed": "closed", "failed": "close_failed"}[status]
    filled = {"filled_qty": Decimal(10), "quantity": Decimal(0)} if status == "completed" else {}
    return position(version, close_request_status=status, **{"position_status": left, **filled, **changes})


def asked(attempt: int, *, close: int = 1, seconds: float = 1.5) -> SubmitOrder:
    return SubmitOrder.model_validate(
        {
            "event_id": UUID(int=close * 77 + attempt),
            "emission": 1,
            "close_request_id": close_id(close),
            "attempt": attempt,
            "position_id": close,
            "account_id": "A",
            "symbol": "AAPL",
            "asset_type": "stock",
            "side": "sell",
            "quantity": Decimal(10),
            "order_type": "market",
            "time_in_force": "day",
            "requested_at": at(seconds),
        }
    )


def heard(
    exec_type: str = "new", *, close: int = 1, attempt: int = 1, seconds: float = 2, **changes: Any
) -> BrokerFillV1:
    given = {
        "event_id": UUID(int=int(seconds * 1000) + close),
        "broker": "alpaca",
        "account_id": "A",
        "symbol": "AAPL",
        "client_order_id": f"cf-{close_id(close).hex}-{attempt}",
        "broker_order_id": "b-1",
        "exec_type": exec_type,
        "order_status": "new",
        "side": "sell",
        "transact_time": at(seconds),
        "received_at": at(seconds),
        "source": "stream",
        **changes,
    }
    return BrokerFillV1.model_validate({name: value for name, value in given.items() if value is not None})


def executed(*, close: int = 1, seconds: float = 3) -> ExecutionEvent:
    return ExecutionEvent.model_validate(
        {
            "event_id": UUID(int=int(seconds * 1000)),
            "event_type": "EXECUTION_RECORDED",
            "exec_id": f"x-{seconds}",
            "broker": "alpaca",
            "account_id": "A",
            "position_id": close,
            "close_request_id": close_id(close),
            "client_order_id": f"cf-{close_id(close).hex}-1",
            "symbol": "AAPL",
            "side": "sell",
            "quantity": Decimal(4),
            "price": Decimal(2),
            "multiplier": Decimal(1),
            "cash_amount": Decimal(8),
            "currency": "USD",
            "emission": 1,
            "occurred_at": at(seconds),
        }
    )
