"""The terms of the domain: statuses, sides and kinds, by the names that the wire and the database use too."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class PositionStatus(StrEnum):
    """What may be asked of a position now; its moves are P1 to P11."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    CLOSE_RETRYABLE = "close_retryable"
    CLOSE_FAILED = "close_failed"


class RequestStatus(StrEnum):
    """How far a close request is; its moves are C1 to C12. `completed` and `failed` are its ends, though facts may
    still change them."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    RETRYABLE = "retryable"
    FAILED = "failed"


UNFINISHED: Final = frozenset({RequestStatus.PENDING, RequestStatus.SUBMITTED, RequestStatus.RETRYABLE})


class OrderStatus(StrEnum):
    """FIX OrdStatus (39), with four of our own before the broker has spoken or where it never will: planned, denied,
    submit_unknown, lost."""

    PLANNED = "planned"
    DENIED = "denied"
    SUBMIT_UNKNOWN = "submit_unknown"
    LOST = "lost"
    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    PENDING_CANCEL = "pending_cancel"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    SUSPENDED = "suspended"
    DONE_FOR_DAY = "done_for_day"


SENDABLE: Final = frozenset({OrderStatus.PLANNED, OrderStatus.SUBMIT_UNKNOWN})
"""Of such an order no acknowledgement is known: it may have to be sent, or sent again."""


class Side(StrEnum):
    """FIX Side (54). A sell makes a long position smaller, a buy a short one."""

    BUY = "buy"
    SELL = "sell"


class AssetType(StrEnum):
    """What is traded: it decides lots, price increments, hours and time in force."""

    STOCK = "stock"
    OPTION = "option"
    CRYPTO = "crypto"


class OrderType(StrEnum):
    """FIX OrdType (40), as far as closes use it."""

    LIMIT = "limit"
    MARKET = "market"


class TimeInForce(StrEnum):
    """FIX TimeInForce (59), as far as closes use it."""

    DAY = "day"
    GTC = "gtc"
    IOC = "ioc"


class ExecType(StrEnum):
    """FIX ExecType (150), with four of ours: `order_status`, `not_found` and `absent` answer a query, and `charge`
    states a commission or fee by itself."""

    NEW = "new"
    TRADE = "trade"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REPLACED = "replaced"
    PENDING_CANCEL = "pending_cancel"
    CANCEL_REJECTED = "cancel_rejected"
    SUSPENDED = "suspended"
    DONE_FOR_DAY = "done_for_day"
    TRADE_CANCEL = "trade_cancel"
    TRADE_CORRECT = "trade_correct"
    CHARGE = "charge"
    ORDER_STATUS = "order_status"
    NOT_FOUND = "not_found"
    ABSENT = "absent"


class BrokerStatus(StrEnum):
    """FIX OrdStatus (39) as the broker states it."""

    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    PENDING_CANCEL = "pending_cancel"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    REPLACED = "replaced"
    SUSPENDED = "suspended"
    DONE_FOR_DAY = "done_for_day"


class ExecKind(StrEnum):
    """What one row of the execution ledger is; a bust or a correction names another row and takes its place."""

    TRADE = "trade"
    BUST = "bust"
    CORRECT = "correct"


class UpdateSource(StrEnum):
    """How we came to know of an update: the stream, a backfill, the answer to a send, the answer to a question, or an
    operator's word."""

    STREAM = "stream"
    BACKFILL = "backfill"
    SUBMIT = "submit"
    QUERY = "query"
    OPERATOR = "operator"


class RejectClass(StrEnum):
    """Whether the same close may be tried again after the refusal, or has failed for good."""

    RETRYABLE = "retryable"
    TERMINAL = "terminal"


class StatementKind(StrEnum):
    """What a kept statement says of an order. `refused` and `lost` are not the broker's."""

    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    PENDING_CANCEL = "pending_cancel"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    REPLACED = "replaced"
    SUSPENDED = "suspended"
    DONE_FOR_DAY = "done_for_day"
    CANCEL_REJECTED = "cancel_rejected"
    REFUSED = "refused"
    """A refusal that rule R3b accepted as proof that the order does not exist."""
    LOST = "lost"


class SendKind(StrEnum):
    """What was put on the wire: an order, or the request to cancel it."""

    SUBMIT = "submit"
    CANCEL = "cancel"


class SendAnswer(StrEnum):
    """What the broker's answer to a send was found to be; only `not_sent` and `not_accepted` prove that it does not
    count."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    NOT_ACCEPTED = "not_accepted"
    UNKNOWN = "unknown"


class PositionCause(StrEnum):
    """What made a version of a position."""

    IMPORTED = "imported"
    """It came here with this quantity."""
    CLOSE_ACCEPTED = "close_accepted"
    EXECUTION = "execution"
    """Executions of orders changed its quantity."""
    REVERSAL = "reversal"
    """A bust or a correction changed its quantity."""
    OVERFILL = "overfill"
    """It holds what executions brought beyond another position's zero (P12), and that changed."""
    ADJUSTMENT = "adjustment"
    """Something outside of ours changed its quantity: a transfer, an expiry, an assignment (P13)."""
    CLOSE_MOVED = "close_moved"
    """Its close, or what is proven of its exposure, changed, and its quantity did not."""


class Topic(StrEnum):
    """The topics that carry our own events; `broker-fill` carries the broker's."""

    SUBMIT_ORDER = "submit-order"
    POSITION_EVENTS = "position-events"
    EXECUTION_EVENTS = "execution-events"
