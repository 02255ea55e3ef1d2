"""Orders as they stand at the broker and in our tables when a job of the reconciler looks at them."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import OrderType, Side, TimeInForce
from closeflow.domain.sending.broker_answers import Acknowledged
from closeflow.domain.sending.ticket import Ticket
from tests.pipeline.submitting import Bench


def a_ticket(bench: Bench, order_id: str) -> Ticket:
    return Ticket(
        client_order_id=order_id,
        account_id=bench.account_id,
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(10),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        limit_price=Decimal("100.00"),
    )


async def place(bench: Bench, broker: AlpacaBroker, request_id: UUID) -> None:
    """An order that the broker has and that our tables call acknowledged, long ago."""
    ticket = a_ticket(bench, client_order_id(request_id, 1))
    answer = await broker.submit(ticket)
    assert isinstance(answer, Acknowledged)
    bench.execute(
        "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side,"
        " quantity, order_type, limit_price, time_in_force, status, last_broker_update_at, created_at)"
        " SELECT %(order)s, id, 1, position_id, account_id, symbol, side, target_qty, 'limit', 100, 'day', 'planned',"
        " now() - interval '1 minute', now() - interval '2 minutes' FROM close_requests WHERE id = %(id)s",
        order=ticket.client_order_id,
        id=request_id,
    )
    bench.execute("UPDATE close_requests SET status = 'submitted' WHERE id = %(id)s", id=request_id)
    bench.name_at_broker(request_id)
