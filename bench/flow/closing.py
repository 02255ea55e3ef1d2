"""What an alternative with a workflow per close says to PostgreSQL and to the broker; parameters as psycopg takes them.

Each of the two transactions changes nothing when it is run again.
"""

from __future__ import annotations

from typing import Any, Final

POSITION: Final = "SELECT symbol, quantity, status FROM positions WHERE id = %(position_id)s FOR UPDATE"
REQUEST: Final = """
    INSERT INTO close_requests
        (id, position_id, idempotency_key, status, symbol, side, target_qty, created_at)
    VALUES (%(id)s, %(position_id)s, %(id)s, 'submitted', %(symbol)s, %(side)s, %(quantity)s, %(accepted_at)s)
    ON CONFLICT DO NOTHING
"""
ORDER: Final = """
    INSERT INTO orders (client_order_id, close_request_id, side, quantity, created_at, updated_at)
    VALUES (%(client_order_id)s, %(id)s, %(side)s, %(quantity)s, clock_timestamp(), clock_timestamp())
    ON CONFLICT DO NOTHING
"""
CLOSING: Final = "UPDATE positions SET status = 'closing', version = version + 1 WHERE id = %(position_id)s"

EXECUTION: Final = """
    INSERT INTO executions (id, client_order_id, quantity, price, executed_at)
    VALUES (%(execution_id)s, %(client_order_id)s, %(qty)s, %(price)s, %(at)s)
    ON CONFLICT DO NOTHING
"""
FILLED: Final = """
    UPDATE orders SET broker_order_id = %(broker_order_id)s, filled_qty = %(filled_qty)s, status = 'filled',
                      updated_at = clock_timestamp()
    WHERE client_order_id = %(client_order_id)s
"""
COMPLETED: Final = """
    UPDATE close_requests SET status = 'completed', filled_qty = %(filled_qty)s, completed_at = clock_timestamp()
    WHERE id = %(id)s
"""
CLOSED: Final = """
    UPDATE positions
    SET quantity = quantity - sign(quantity) * %(qty)s::numeric, status = 'closed', version = version + 1,
        closed_at = clock_timestamp()
    WHERE id = %(position_id)s
"""
"""Of a fill of the whole order, as the lean broker has them all."""


def client_order_id(workflow_id: str) -> str:
    """The order of a workflow; `workflow_id_of` reads it back."""
    return f"cf-{workflow_id}"


def workflow_id_of(client_order_id: str) -> str:
    """The workflow whose order it is."""
    return client_order_id.removeprefix("cf-")


def planned(workflow_id: str, position_id: int, accepted_at: str, row: Any) -> dict[str, Any]:
    """The parameters of REQUEST, ORDER and CLOSING, from the row of POSITION."""
    symbol, quantity, _ = row
    return {
        "id": workflow_id,
        "position_id": position_id,
        "accepted_at": accepted_at,
        "client_order_id": client_order_id(workflow_id),
        "symbol": symbol,
        "side": "sell" if quantity > 0 else "buy",
        "quantity": str(abs(quantity)),
    }


def ticket(order: dict[str, Any]) -> dict[str, str]:
    """The body of the call to the broker."""
    return {
        "symbol": order["symbol"],
        "qty": order["quantity"],
        "side": order["side"],
        "type": "market",
        "time_in_force": "day",
        "client_order_id": order["client_order_id"],
    }
