"""The words of the domain: positions, close requests, orders and the facts they are computed from.

Quantities and prices are `Decimal`; `Position.quantity`, `opening_quantity` and `ledger_quantity` are signed
(short < 0), every other quantity is positive and goes with a `Side`. Times are aware datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final
from uuid import UUID

from closeflow.domain.enums import UNFINISHED as UNFINISHED
from closeflow.domain.enums import AssetType as AssetType
from closeflow.domain.enums import BrokerStatus as BrokerStatus
from closeflow.domain.enums import ExecKind as ExecKind
from closeflow.domain.enums import ExecType as ExecType
from closeflow.domain.enums import OrderStatus as OrderStatus
from closeflow.domain.enums import OrderType as OrderType
from closeflow.domain.enums import PositionCause as PositionCause
from closeflow.domain.enums import PositionStatus as PositionStatus
from closeflow.domain.enums import RejectClass as RejectClass
from closeflow.domain.enums import RequestStatus as RequestStatus
from closeflow.domain.enums import SendAnswer as SendAnswer
from closeflow.domain.enums import SendKind as SendKind
from closeflow.domain.enums import Side as Side
from closeflow.domain.enums import StatementKind as StatementKind
from closeflow.domain.enums import TimeInForce as TimeInForce
from closeflow.domain.enums import Topic as Topic
from closeflow.domain.enums import UpdateSource as UpdateSource
from closeflow.domain.frozen import quick

ZERO: Final = Decimal(0)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What an account holds of a symbol; quantities are signed (short below 0), and `version` rises with every visible
    change."""

    id: int
    account_id: str
    symbol: str
    asset_type: AssetType
    multiplier: Decimal
    currency: str
    opening_quantity: Decimal
    quantity: Decimal
    status: PositionStatus
    version: int
    active_close_request_id: UUID | None = None
    closed_at: datetime | None = None
    reopened_at: datetime | None = None
    overfill_of: int | None = None
    """The position whose executions went across zero, if this one holds what they brought too much (P12)."""
    exposure_unproven: bool = False


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRequest:
    """One accepted close, and how far it is. What was asked for never changes; quantities are unsigned."""

    id: UUID
    position_id: int
    account_id: str
    idempotency_key: str
    fingerprint: str
    requested_by: str
    status: RequestStatus
    symbol: str
    side: Side
    asset_type: AssetType
    target_quantity: Decimal
    filled_quantity: Decimal
    order_type: OrderType
    time_in_force: TimeInForce
    working_timeout_s: int
    max_retries: int
    created_at: datetime
    attempt: int = 1
    retry_count: int = 0
    emission: int = 1
    auto_retry: bool = True
    limit_price: Decimal | None = None
    max_slippage_bps: int | None = None
    deadline_at: datetime | None = None
    next_attempt_at: datetime | None = None
    deferred_since: datetime | None = None
    """Since when it cannot be planned; see `deferral`."""
    frozen_reason: str | None = None
    cancel_requested_at: datetime | None = None
    reason: str | None = None
    requested_reason: str | None = None
    """Why its caller asked for it, in the caller's words; `reason` is how it came to its status."""
    traceparent: str | None = None
    submitted_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def remaining_quantity(self) -> Decimal:
        """What is not filled of the target; below 0 after an overfill."""
        return self.target_quantity - self.filled_quantity

    @property
    def unfinished(self) -> bool:
        """Whether it may still send orders: pending, submitted or retryable."""
        return self.status in UNFINISHED


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One row of the ledger, identified by (broker, account, exec_id) and never changed: a trade that the broker
    reported, or the bust or correction of one (FIX ExecType H and G), which names it in `ref_exec_id` (tag 19). The
    quantity and price of a correction are the trade's from now on; those of a bust say nothing and may be 0.
    """

    broker: str
    exec_id: str
    client_order_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    occurred_at: datetime
    source: UpdateSource
    cum_quantity: Decimal | None = None
    broker_seq: int | None = None
    kind: ExecKind = ExecKind.TRADE
    ref_exec_id: str | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What the account pays for one execution, as the broker states it; an amount below 0 is given back. Never changed.

    `charge_id` is the execution's own id where the report of the execution states it, then or later; such a charge goes
    with the execution, when that is taken back. Else it is the id of the broker's own entry, of which each counts.
    """

    broker: str
    charge_id: str
    exec_id: str
    commission: Decimal
    fees: Decimal
    currency: str | None
    """None is the position's."""
    occurred_at: datetime
    source: UpdateSource

    @property
    def is_own(self) -> bool:
        """Whether it is of the execution's own report."""
        return self.charge_id == self.exec_id


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The newest statement of one kind about an order. Quantities are absent where the broker did not state them.

    `stated_at` is the broker's time, and `heard_at` the database's when it was folded, which is held against times of
    ours; it is absent where nobody kept it.
    """

    kind: StatementKind
    stated_at: datetime
    source: str
    heard_at: datetime | None = None
    broker_seq: int | None = None
    cum_quantity: Decimal | None = None
    leaves_quantity: Decimal | None = None
    detail: str | None = None

    @property
    def known_since(self) -> datetime:
        """By our clock, as far as it was kept."""
        return self.heard_at or self.stated_at


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One attempt to put an order (or its cancel) on the wire; the row is durable before the first byte."""

    kind: SendKind
    n: int
    sender: str
    lease_until: datetime
    started_at: datetime
    answered_at: datetime | None = None
    answer: SendAnswer | None = None
    probe: bool = False
    """Whether it was let through an open circuit breaker to see whether orders pass again."""

    @property
    def counts(self) -> bool:
        """Whether the broker may have seen it (rule R3b): everything but `not_sent` and `not_accepted`."""
        return self.answer not in (SendAnswer.NOT_SENT, SendAnswer.NOT_ACCEPTED)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order with every fact known about it. `status` and the quantities are what `derive` last made of the facts."""

    client_order_id: str
    close_request_id: UUID
    attempt: int
    position_id: int
    account_id: str
    symbol: str
    side: Side
    quantity: Decimal
    order_type: OrderType
    time_in_force: TimeInForce
    status: OrderStatus
    created_at: datetime
    limit_price: Decimal | None = None
    quote: Mapping[str, str] | None = None
    broker_order_id: str | None = None
    executed_quantity: Decimal = ZERO
    stated_cum_quantity: Decimal = ZERO
    """The highest cumulative quantity the broker stated since its last bust or correction."""
    average_price: Decimal | None = None
    broker_update_seq: int | None = None
    last_broker_update_at: datetime | None = None
    not_found_count: int = 0
    next_send_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    reject_code: str | None = None
    reject_class: RejectClass | None = None
    executions: tuple[Execution, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of executions, alias to exec_id: a feed that names a fill differently (rule R3a)."""
    charges: tuple[Charge, ...] = ()
    """In the order in which they were kept."""
    withheld: tuple[Execution, ...] = ()
    """Trades of which it is not clear yet whether they are new: neither booked nor an alias (rule R3a)."""
    statements: tuple[Statement, ...] = ()
    sends: tuple[Send, ...] = ()
    derived: dict[Any, Any] = field(init=False, compare=False, repr=False, default_factory=dict)
    """Of `closeflow.domain.frozen.kept` alone."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUpdate:
    """What the broker said, in one shape whatever the door (stream, backfill, answer to a submit or a query)."""

    event_id: UUID
    broker: str
    account_id: str
    symbol: str
    client_order_id: str
    exec_type: ExecType
    side: Side
    source: UpdateSource
    transact_time: datetime
    received_at: datetime
    """By the clock of the host that heard it, for show; the fill-processor puts the database's time in its place."""
    order_status: BrokerStatus | None = None
    order_quantity: Decimal | None = None
    broker_order_id: str | None = None
    exec_id: str | None = None
    exec_ref_id: str | None = None
    cum_quantity: Decimal | None = None
    leaves_quantity: Decimal | None = None
    average_price: Decimal | None = None
    last_quantity: Decimal | None = None
    last_price: Decimal | None = None
    broker_seq: int | None = None
    reject_code: str | None = None
    reject_class: RejectClass | None = None
    reason: str | None = None
    position_quantity: Decimal | None = None
    commission: Decimal | None = None
    fees: Decimal | None = None
    currency: str | None = None
    message: Mapping[str, object] | None = field(default=None, compare=False, repr=False)
    """What the broker said, as it said it; for whoever has to put the update aside."""


@dataclass(frozen=True, slots=True)
class OrderRef:
    """An order that is not loaded: its id, and whose it is."""

    client_order_id: str
    position_id: int
    close_request_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something a person must know of. One is open per (kind, subject); raising it again counts.

    The subject is the order, else the request, else the position, else `subject`. Severities: info, warning, critical.
    """

    kind: str
    severity: str
    detail: str
    subject: str | None = None
    position_id: int | None = None
    close_request_id: UUID | None = None
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What the value of every topic of ours says; `domain.outbox.payloads` has a class with the rest for each topic."""

    TOPIC: ClassVar[Topic]

    event_id: UUID
    emission: int = 1
    position_id: int
    account_id: str
    symbol: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something to publish through the outbox. `payload` is the topic's value, which `contracts.outbox` writes."""

    topic: Topic
    event_type: str
    payload: Payload
    event_id: UUID
    key: str
    position_id: int
    close_request_id: UUID | None = None
    attempt: int | None = None
    position_version: int | None = None
    emission: int = 1
    traceparent: str | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """A position with its close requests and orders: all that one decision may look at, loaded under one set of locks.

    `requests` holds at least every unfinished or frozen request of the position and those a message named; `orders`
    every order of those requests and every other order of the position that is not over. `base_quantity` is opening
    + adjustments; `ledger_quantity` is that + all signed effective executions of the position, also of orders that are
    not here.
    """

    position: Position
    base_quantity: Decimal
    ledger_quantity: Decimal
    disputed: bool = False
    """It holds an overfill, and the incident that tells of that is open."""
    requests: Mapping[UUID, CloseRequest] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)

    @property
    def active(self) -> CloseRequest | None:
        """The position's active request; a KeyError says that the book was loaded without it."""
        request_id = self.position.active_close_request_id
        return self.requests[request_id] if request_id is not None else None

    def orders_of(self, request_id: UUID) -> tuple[Order, ...]:
        """The orders of one request, oldest attempt first."""
        mine = (order for order in self.orders.values() if order.close_request_id == request_id)
        return tuple(sorted(mine, key=lambda order: order.attempt))
