"""Alpaca's JSON → what the domain understands. Pure; numbers stay decimals, times are read with their zone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final, TypedDict

from closeflow.domain.ids import broker_update_id, parse_client_order_id
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, Side, UpdateSource
from closeflow.domain.text import decimal_text

Json = Mapping[str, object]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

STATUSES: Final[Mapping[str, BrokerStatus]] = {
    "new": BrokerStatus.NEW,
    "accepted": BrokerStatus.NEW,
    "pending_new": BrokerStatus.NEW,
    "accepted_for_bidding": BrokerStatus.NEW,
    "held": BrokerStatus.NEW,
    "stopped": BrokerStatus.NEW,
    "pending_replace": BrokerStatus.NEW,
    "calculated": BrokerStatus.NEW,
    "partially_filled": BrokerStatus.PARTIALLY_FILLED,
    "filled": BrokerStatus.FILLED,
    "pending_cancel": BrokerStatus.PENDING_CANCEL,
    "canceled": BrokerStatus.CANCELED,
    "expired": BrokerStatus.EXPIRED,
    "rejected": BrokerStatus.REJECTED,
    "replaced": BrokerStatus.REPLACED,
    "suspended": BrokerStatus.SUSPENDED,
    "done_for_day": BrokerStatus.DONE_FOR_DAY,
}

_LIVE: Final = frozenset(
    {BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED, BrokerStatus.PENDING_CANCEL, BrokerStatus.SUSPENDED}
)
"""Statuses under which what is not filled can still fill, so that leaves = quantity − filled."""

EVENTS: Final[Mapping[str, ExecType]] = {
    "new": ExecType.NEW,
    "fill": ExecType.TRADE,
    "partial_fill": ExecType.TRADE,
    "canceled": ExecType.CANCELED,
    "expired": ExecType.EXPIRED,
    "rejected": ExecType.REJECTED,
    "replaced": ExecType.REPLACED,
    "pending_cancel": ExecType.PENDING_CANCEL,
    "suspended": ExecType.SUSPENDED,
    "done_for_day": ExecType.DONE_FOR_DAY,
    "order_cancel_rejected": ExecType.CANCEL_REJECTED,
    "trade_bust": ExecType.TRADE_CANCEL,
    "trade_correct": ExecType.TRADE_CORRECT,
    # The rest say nothing but the order's state.
    "accepted": ExecType.ORDER_STATUS,
    "pending_new": ExecType.ORDER_STATUS,
    "held": ExecType.ORDER_STATUS,
    "stopped": ExecType.ORDER_STATUS,
    "calculated": ExecType.ORDER_STATUS,
    "restated": ExecType.ORDER_STATUS,
    "pending_replace": ExecType.ORDER_STATUS,
    "order_replace_rejected": ExecType.ORDER_STATUS,
}

_NAMES_EXECUTION: Final = frozenset({ExecType.TRADE, ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT})
_REVERSALS: Final = frozenset({ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT})

ACTIVITY_TYPES: Final[Mapping[str, ExecType]] = {
    "fill": ExecType.TRADE,
    "partial_fill": ExecType.TRADE,
    # Not documented as FILL activities; these are the words of Alpaca's activity events. Taking one of them for a fill
    # would book it twice.
    "trade_bust": ExecType.TRADE_CANCEL,
    "trade_correct": ExecType.TRADE_CORRECT,
}

_NUMBER: Final = re.compile(r"-?[0-9]{9,30}(\.[0-9]{1,30})?")
_SECONDS_BELOW: Final = Decimal(10) ** 11
_MAX_DIGITS: Final = 40
"""Before or after the point; what is longer was never a quantity or a price."""

_QUOTE_CURRENCIES: Final = ("USDT", "USDC", "USD", "BTC")


class Malformed(ValueError):
    """The broker's JSON lacks what it must have, or holds something that is not what it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderName:
    """What an execution has to be told of its order: an activity names it by the broker's id only."""

    client_order_id: str
    symbol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose updates are read: the first two parts of every execution's identity."""

    broker: str
    account_id: str


def as_object(value: object, what: str) -> Json:
    """Raises Malformed, in which `what` names the value."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


def text(of: Json, name: str) -> str:
    """Never empty; raises Malformed where it is, or is no text."""
    value = of.get(name)
    if not isinstance(value, str) or not value:
        raise Malformed(f"{name} is missing or not text")
    return value


def _note(of: Json, name: str) -> str | None:
    found = of.get(name)
    return None if found in (None, "") else str(found)


def number(of: Json, name: str) -> Decimal:
    """Finite, from a JSON text or number, without trailing zeros; raises Malformed for what is none."""
    value = of.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Malformed(f"{name} is missing or not a number")
    try:
        parsed = Decimal(value)
    except InvalidOperation:
        raise Malformed(f"{name} is not a number: {value!r}") from None
    if not parsed.is_finite() or (parsed and abs(parsed.adjusted()) > _MAX_DIGITS):
        raise Malformed(f"{name} is not a finite number of at most {_MAX_DIGITS} digits")
    return Decimal(decimal_text(parsed)) if parsed else Decimal(0)


def optional_number(of: Json, name: str) -> Decimal | None:
    """None where it is absent or empty; raises Malformed where it is there and no number."""
    return number(of, name) if of.get(name) not in (None, "") else None


def aside(of: Json, name: str) -> Decimal | None:
    """A number that decides nothing: None when it cannot be read, because no fill may be lost for it."""
    try:
        return optional_number(of, name)
    except Malformed:
        return None


def time(of: Json, name: str) -> datetime:
    """RFC 3339, or the time since 1970 in seconds, or in thousandths or millionths of one; digits after the microsecond
    are cut off."""
    value = of.get(name)
    try:
        since_epoch = _since_epoch(value)
        parsed = datetime.fromisoformat(text(of, name)) if since_epoch is None else _EPOCH + since_epoch
        if parsed.tzinfo is None:
            raise Malformed(f"{name} has no time zone")
        return parsed.astimezone(UTC)
    except Malformed:
        raise
    except (ValueError, ArithmeticError) as error:
        raise Malformed(f"{name} is not a time: {error}") from None


def _since_epoch(value: object) -> timedelta | None:
    """The unit is told by the size: seconds until the year 5138, of which 1e11 milliseconds are 1973."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    seconds = Decimal(value)
    while abs(seconds) >= _SECONDS_BELOW:
        seconds /= 1000
    return timedelta(microseconds=int(seconds * 1_000_000))


def optional_time(of: Json, name: str) -> datetime | None:
    """None also for the year 1 and for 0: some systems write no time so."""
    value = of.get(name)
    if value in (None, "") or str(value).startswith("0001-"):
        return None
    found = time(of, name)
    return found if found > _EPOCH else None


def aside_time(of: Json, name: str) -> datetime | None:
    """A time that another can stand for: None when it cannot be read."""
    try:
        return optional_time(of, name)
    except Malformed:
        return None


def side(of: Json) -> Side:
    """Raises Malformed for a word that is not known: a side is never guessed."""
    value = text(of, "side")
    if value == "sell_short":  # Activities say so for a sell that opens a short.
        return Side.SELL
    if value not in (Side.BUY, Side.SELL):
        raise Malformed(f"side {value!r} is not known")
    return Side(value)


def is_foreign(order: Json) -> bool:
    """Whether the order is known to be somebody else's, however little of it can be read."""
    named = order.get("client_order_id")
    return isinstance(named, str) and named != "" and parse_client_order_id(named) is None


def symbol(of: Json) -> str:
    """Our form of a symbol: crypto pairs with a slash, though parts of Alpaca's API leave it out."""
    value = text(of, "symbol")
    if of.get("asset_class") == "crypto" and "/" not in value:
        for currency in _QUOTE_CURRENCIES:
            if value.endswith(currency) and value != currency:
                return f"{value.removesuffix(currency)}/{currency}"
    return value


def symbol_in(item: object) -> str:
    """What is known of an unreadable position: its symbol, in our form where that can be told, else nothing."""
    try:
        return symbol(as_object(item, "position"))
    except Malformed:
        return ""


def sequence(of: Json) -> int | None:
    """`broker_seq`: the order's `updated_at` in microseconds since 1970, the same in REST and stream."""
    updated_at = optional_time(of, "updated_at")
    return None if updated_at is None else (updated_at - _EPOCH) // _MICROSECOND


def _plain(value: Decimal | None) -> str:
    return "" if value is None else decimal_text(value)


def order_update(order: Json, *, of: Account, source: UpdateSource, received_at: datetime) -> BrokerUpdate:
    """An order as an answer to a call → its statement. Equal statements have equal event ids, whoever asked."""
    status = text(order, "status")
    broker_seq = sequence(order)
    cum = optional_number(order, "filled_qty")
    client_order_id = text(order, "client_order_id")
    quantity = optional_number(order, "qty")
    known = STATUSES.get(status)
    return BrokerUpdate(
        event_id=broker_update_id(of.broker, of.account_id, client_order_id, "order", status, broker_seq, _plain(cum)),
        broker=of.broker,
        account_id=of.account_id,
        symbol=symbol(order),
        client_order_id=client_order_id,
        exec_type=ExecType.ORDER_STATUS,
        side=side(order),
        source=source,
        transact_time=optional_time(order, "updated_at") or aside_time(order, "submitted_at") or received_at,
        received_at=received_at,
        order_status=known,
        order_quantity=quantity,
        broker_order_id=text(order, "id"),
        cum_quantity=cum,
        leaves_quantity=_leaves(known, quantity, cum),
        average_price=aside(order, "filled_avg_price"),
        broker_seq=broker_seq,
        reason=None if known else f"the broker's order status {status!r} is not known",
        message=order,
    )


def _leaves(status: BrokerStatus | None, quantity: Decimal | None, cum: Decimal | None) -> Decimal | None:
    if status not in _LIVE or quantity is None or cum is None or cum > quantity:
        return None
    return quantity - cum


def trade_update(data: Json, *, of: Account, received_at: datetime) -> BrokerUpdate:
    """The `data` of one `trade_updates` message. An event that is not in `EVENTS` becomes the state of its order."""
    event = text(data, "event")
    exec_type = EVENTS.get(event, ExecType.ORDER_STATUS)
    base = order_update(
        as_object(data.get("order"), "order"), of=of, source=UpdateSource.STREAM, received_at=received_at
    )
    executed = exec_type in _NAMES_EXECUTION
    exec_id = text(data, "execution_id") if executed else None
    trade = exec_type in (ExecType.TRADE, ExecType.TRADE_CORRECT)
    last_quantity = number(data, "qty") if trade else None
    last_price = number(data, "price") if trade else None
    event_id = broker_update_id(
        of.broker,
        of.account_id,
        base.client_order_id,
        event,
        exec_id or "",
        _plain(last_quantity),
        _plain(last_price),
        base.event_id,
    )
    return BrokerUpdate(
        event_id=event_id,
        broker=of.broker,
        account_id=of.account_id,
        symbol=base.symbol,
        client_order_id=base.client_order_id,
        exec_type=exec_type,
        side=base.side,
        source=UpdateSource.STREAM,
        transact_time=aside_time(data, "timestamp") or base.transact_time,
        received_at=received_at,
        order_status=base.order_status,
        order_quantity=base.order_quantity,
        broker_order_id=base.broker_order_id,
        exec_id=exec_id,
        # A bust of we do not know what cannot be booked; Malformed makes the gateway ask the activities.
        exec_ref_id=text(data, "previous_execution_id") if exec_type in _REVERSALS else None,
        cum_quantity=base.cum_quantity,
        leaves_quantity=base.leaves_quantity,
        average_price=base.average_price,
        last_quantity=last_quantity,
        last_price=last_price,
        broker_seq=base.broker_seq,
        reason=base.reason or _note(data, "reason") or (None if event in EVENTS else f"event {event!r}"),
        position_quantity=aside(data, "position_qty"),
        **(charge(data) if trade else {}),
        message=data,
    )


def fill_activity(activity: Json, *, of: Account, order: OrderName, received_at: datetime) -> BrokerUpdate:
    """A FILL activity whose order was resolved. It has an execution id of its own and states no sequence.

    Raises Malformed for a type that is not in `ACTIVITY_TYPES`, and for a bust or correction that names nothing.
    """
    exec_type = ACTIVITY_TYPES.get(text(activity, "type"))
    if exec_type is None:
        raise Malformed(f"activity type {activity['type']!r} is not known")
    exec_id = text(activity, "id")
    what = "fill" if exec_type is ExecType.TRADE else exec_type.value
    quantity, price = number(activity, "qty"), number(activity, "price")
    cum, leaves = optional_number(activity, "cum_qty"), aside(activity, "leaves_qty")
    bust = exec_type is ExecType.TRADE_CANCEL
    return BrokerUpdate(
        event_id=broker_update_id(
            of.broker, of.account_id, order.client_order_id, what, exec_id, *map(_plain, (quantity, price, cum))
        ),
        broker=of.broker,
        account_id=of.account_id,
        symbol=order.symbol,
        client_order_id=order.client_order_id,
        exec_type=exec_type,
        side=side(activity),
        source=UpdateSource.BACKFILL,
        transact_time=aside_time(activity, "transaction_time") or received_at,
        received_at=received_at,
        broker_order_id=text(activity, "order_id"),
        exec_id=exec_id,
        exec_ref_id=text(activity, "previous_id") if exec_type in _REVERSALS else None,
        cum_quantity=cum,
        leaves_quantity=leaves if leaves is None or leaves >= 0 else None,
        last_quantity=None if bust else quantity,
        last_price=None if bust else price,
        **({} if bust else charge(activity)),
        message=activity,
    )


class StatedCharge(TypedDict, total=False):
    """What an execution costs, as its report states it."""

    commission: Decimal | None
    fees: Decimal | None
    currency: str | None


def charge(of: Json) -> StatedCharge:
    """Of a fill: Alpaca's pages show none there, and an account that pays commission may see it. No fill is lost for
    one that cannot be read."""
    return {"commission": aside(of, "commission"), "fees": aside(of, "fees"), "currency": _note(of, "currency")}


def position_quantity(position: Json) -> Decimal:
    """Signed: a short is negative, whether Alpaca says so in `qty` or only in `side`."""
    quantity = number(position, "qty")
    return -abs(quantity) if position.get("side") == "short" else quantity
