"""The ORM's classes of books.sql and outbox.sql, the engine, and the names of the topics."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

PREFIX: Final = "usual-"
SUBMIT_ORDER: Final = f"{PREFIX}submit-order"
BROKER_FILL: Final = f"{PREFIX}broker-fill"
POSITION_EVENTS: Final = f"{PREFIX}position-events"
POOL: Final = 16
AT_A_TIME: Final = 8
"""So many events an agent has in hand. It closes as many per second with one, for a little more CPU."""


class Base(DeclarativeBase):
    """The ORM's registry."""

    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSONB}  # noqa: RUF012 (as its manual has it)


class Position(Base):
    """What is held; `open`, then `closing`, then `closed`."""

    __tablename__ = "positions"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    symbol: Mapped[str]
    quantity: Mapped[Decimal]
    status: Mapped[str]
    version: Mapped[int]
    closed_at: Mapped[datetime | None]


class CloseRequest(Base):
    """One close of a position."""

    __tablename__ = "close_requests"
    id: Mapped[str] = mapped_column(primary_key=True)
    position_id: Mapped[int] = mapped_column(ForeignKey("positions.id"))
    idempotency_key: Mapped[str]
    status: Mapped[str]
    symbol: Mapped[str]
    side: Mapped[str]
    target_qty: Mapped[Decimal]
    filled_qty: Mapped[Decimal]
    created_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class Order(Base):
    """The order of a close request, written before it is sent."""

    __tablename__ = "orders"
    client_order_id: Mapped[str] = mapped_column(primary_key=True)
    close_request_id: Mapped[str] = mapped_column(ForeignKey("close_requests.id"))
    broker_order_id: Mapped[str | None]
    status: Mapped[str]
    side: Mapped[str]
    quantity: Mapped[Decimal]
    filled_qty: Mapped[Decimal]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Execution(Base):
    """A fill, once per id of the broker's."""

    __tablename__ = "executions"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_order_id: Mapped[str] = mapped_column(ForeignKey("orders.client_order_id"))
    quantity: Mapped[Decimal]
    price: Mapped[Decimal]
    executed_at: Mapped[datetime]


class OutboxEvent(Base):
    """An event that Debezium publishes to the topic of its aggregate type."""

    __tablename__ = "outbox_events"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    aggregatetype: Mapped[str]
    aggregateid: Mapped[str]
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


def sessions() -> async_sessionmaker[AsyncSession]:
    """Sessions of a pool of POOL connections to the database of POSTGRES_DSN."""
    url = os.environ["POSTGRES_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1)
    return async_sessionmaker(create_async_engine(url, pool_size=POOL, max_overflow=0), expire_on_commit=False)


def event(topic: str, kind: str, request: CloseRequest, **more: object) -> OutboxEvent:
    """An outbox row about a close request, for a topic that is keyed by position."""
    now = datetime.now(UTC)
    return OutboxEvent(
        id=uuid.uuid4(),
        aggregatetype=topic.removeprefix(PREFIX),
        aggregateid=str(request.position_id),
        type=kind,
        payload={
            "close_request_id": request.id,
            "position_id": request.position_id,
            "symbol": request.symbol,
            "side": request.side,
            "quantity": str(request.target_qty),
            "occurred_at": now.isoformat(),
            **more,
        },
        created_at=now,
    )
