"""Closes as the services make them, written by the services' own decisions and storage, without the services.

Position 1 was closed by two fills, 2 by two orders after a cancel, 3 (a short) is partly filled and live, 4 is accepted
only, 5 was rejected for good, 6 is as imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid5

from closectl.import_positions import import_positions
from closectl.positions_file import read_positions
from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.contracts.codec import encode
from closeflow.domain.close.accept import Accepted, CloseCommand, accept_close
from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Moved
from closeflow.domain.close.plan_order import Asked, Market, PlanRules, Submit, apply_plan, plan
from closeflow.domain.ids import NAMESPACE, client_order_id, submit_event_id
from closeflow.domain.market_data import MarketClock, Quote
from closeflow.domain.model import (
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    Order,
    RejectClass,
    SendAnswer,
    SendKind,
    UpdateSource,
)
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending.claim import claim
from closeflow.domain.trading_controls import TradingState
from closeflow.kafka.records import Record
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import save_books
from closeflow.storage.core.engine import Database, database_now, transaction
from closeflow.storage.inbox import record_receipts
from closeflow.storage.order_sends import Answered, insert_sends, record_answers
from closeflow.storage.outbox import insert_events
from closeflow.storage.trading_controls import lock_controls
from fill_processor.batch_transaction import Processor

ACCOUNT: Final = "main"
FILE: Final = """position_id,account_id,symbol,asset_type,quantity,multiplier,currency
1,main,AAPL,stock,10,1,USD
2,main,MSFT,stock,10,1,USD
3,main,NVDA,stock,-5,1,USD
4,main,AMZN,stock,7,1,USD
5,main,TSLA,stock,3,1,USD
6,main,BTC/USD,crypto,0.75,1,USD
"""
REQUESTS: Final = {number: UUID(int=0x01932F4E_8A10_7C3B_9D21_000000000000 + number) for number in range(1, 7)}
AT_ONCE: Final = RetryPolicy(settle_delay_s=0, base_s=0)


def order_id(position_id: int, attempt: int = 1) -> str:
    return client_order_id(REQUESTS[position_id], attempt)


@dataclass(slots=True)
class Closes:
    """Closes as services would have left them, made step by step with the domain's own decisions."""

    database: Database
    sequence: int = 0
    orders: dict[str, Order] = field(default_factory=dict)

    async def make_all(self, *, accepted: Sequence[int] = (1, 2, 3, 4, 5)) -> None:
        await import_positions(self.database, read_positions(FILE.splitlines()), broker="alpaca")
        for position_id in accepted:
            await self.accept(position_id)
        await self.submit(1)
        await self.fill(1, "4", cum="4")
        await self.fill(1, "6", cum="10")
        await self.submit(2)
        await self.fill(2, "4", cum="4")
        await self.state(2, BrokerStatus.CANCELED, cum="4")
        await self.retry(2)
        await self.submit(2, attempt=2)
        await self.fill(2, "6", cum="6", attempt=2)
        await self.submit(3)
        await self.state(3, BrokerStatus.NEW, cum="0")
        await self.fill(3, "2", cum="2")
        await self.submit(5)
        await self.state(5, BrokerStatus.REJECTED, cum="0", reject_class=RejectClass.TERMINAL)

    async def accept(self, position_id: int) -> None:
        command = CloseCommand(
            request_id=REQUESTS[position_id],
            position_id=position_id,
            idempotency_key=f"key-{position_id}",
            requested_by="desk",
        )
        async with transaction(self.database) as tx:
            before = (await lock_books(tx, position_ids=[position_id]))[position_id]
            now = await database_now(tx)
            decided = accept_close(before, command, None, trading=TradingState.ACTIVE, now=now)
            assert isinstance(decided, Accepted)
            await save_books(tx, changes=[(before, decided.book)])
            await insert_events(tx, events=decided.events)

    async def submit(self, position_id: int, *, attempt: int = 1) -> None:
        """Plan the attempt and send it; the broker answers that it has it."""
        request_id = REQUESTS[position_id]
        async with transaction(self.database) as tx:
            before = (await lock_books(tx, position_ids=[position_id]))[position_id]
            held = await lock_controls(tx, account_id=ACCOUNT)
            now = held.now
            request = before.requests[request_id]
            asked = Asked(
                close_request_id=request_id,
                attempt=attempt,
                position_id=position_id,
                account_id=ACCOUNT,
                symbol=request.symbol,
                side=request.side,
            )
            market = _market(request.symbol, now)
            decided = plan(before, asked, controls=held.controls, market=market, now=now, rules=PlanRules())
            assert isinstance(decided, Submit)
            book = apply_plan(before, request_id, decided, now=now)
            order, send = claim(decided.order, SendKind.SUBMIT, sender="sub-1", now=now, lease_s=30)
            book = replace(book, orders={**book.orders, order.client_order_id: order})
            await save_books(tx, changes=[(before, book)])
            await insert_sends(tx, sends=[(order, send)])
            receipt = {submit_event_id(request_id, attempt): "applied"}
            await record_receipts(tx, consumer="order-submitter", outcomes=receipt, now=now)
        self.orders[order.client_order_id] = order
        async with transaction(self.database) as tx:
            answered = Answered(
                client_order_id=order.client_order_id,
                kind=SendKind.SUBMIT,
                n=1,
                sender=send.sender,
                started_at=send.started_at,
                answer=SendAnswer.ACCEPTED,
            )
            await record_answers(tx, answers=[answered])

    async def fill(self, position_id: int, quantity: str, *, cum: str, attempt: int = 1, price: str = "100.25") -> None:
        done = Decimal(cum) == self.orders[order_id(position_id, attempt)].quantity
        status = BrokerStatus.FILLED if done else BrokerStatus.PARTIALLY_FILLED
        await self.tell(
            position_id,
            attempt,
            exec_type=ExecType.TRADE,
            order_status=status,
            cum_quantity=Decimal(cum),
            exec_id=f"fill-{position_id}-{attempt}-{cum}",
            last_quantity=Decimal(quantity),
            last_price=Decimal(price),
        )

    async def state(self, position_id: int, status: BrokerStatus, *, cum: str, **more: Any) -> None:
        await self.tell(
            position_id,
            1,
            exec_type=ExecType(status.value),
            order_status=status,
            cum_quantity=Decimal(cum),
            **more,
        )

    async def retry(self, position_id: int) -> None:
        async with transaction(self.database) as tx:
            before = (await lock_books(tx, position_ids=[position_id]))[position_id]
            verdict = wake(
                before,
                before.requests[REQUESTS[position_id]],
                now=await database_now(tx),
                resend_after=timedelta(seconds=30),
                unknown_after=timedelta(minutes=15),
            )
            assert isinstance(verdict, Moved)
            await save_books(tx, changes=[(before, verdict.book)])
            await insert_events(tx, events=verdict.events)

    async def tell(self, position_id: int, attempt: int = 1, **said: Any) -> None:
        """The broker says something of an order, and the fill-processor hears it."""
        order = self.orders[order_id(position_id, attempt)]
        self.sequence += 1
        async with transaction(self.database) as tx:
            now = await database_now(tx)
        update = BrokerUpdate(
            event_id=uuid5(NAMESPACE, f"seed/{self.sequence}"),
            broker="alpaca",
            account_id=ACCOUNT,
            symbol=order.symbol,
            client_order_id=order.client_order_id,
            side=order.side,
            source=UpdateSource.STREAM,
            transact_time=now,
            received_at=now,
            order_quantity=order.quantity,
            broker_order_id=f"broker-{order.client_order_id}",
            broker_seq=self.sequence,
            **said,
        )
        await Processor(self.database, AT_ONCE).process_batch([_record(update, self.sequence)])


def _market(symbol: str, now: datetime) -> Market:
    clock = MarketClock(at=now, is_open=True, next_open=now + timedelta(days=1))
    return Market(clock=clock, quotes={symbol: Quote(symbol=symbol, bid=Decimal(100), ask=Decimal(101), at=now)})


def _record(update: BrokerUpdate, offset: int) -> Record[BrokerFillV1]:
    value = BrokerFillV1.from_domain(update)
    return Record(
        topic="broker-fill",
        partition=0,
        offset=offset,
        key=None,
        value=value,
        raw=encode(value),
        headers=(),
        timestamp=update.received_at,
    )
