"""From the body of `POST /v2/orders` to a ticket, or to the refusal that Alpaca gives."""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final, Literal
from uuid import uuid4

import orjson

from .assets import AssetClass, class_of
from .errors import Refusal, invalid_field, malformed_body, unprocessable
from .numbers import plain
from .orders import Side, Ticket

_TIMES_IN_FORCE: Final[Mapping[AssetClass, frozenset[str]]] = {
    "us_equity": frozenset({"day", "gtc", "opg", "cls", "ioc", "fok"}),
    "us_option": frozenset({"day"}),
    "crypto": frozenset({"gtc", "ioc"}),
}
_INTENTS: Final = {
    "buy": frozenset({"buy_to_open", "buy_to_close"}),
    "sell": frozenset({"sell_to_open", "sell_to_close"}),
}


def read_fields(body: bytes) -> Mapping[str, object] | None:
    """The JSON object in the body, None when there is none."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


def client_order_id_of(fields: Mapping[str, object] | None) -> str | None:
    """The id as far as it can be read, also of a body that is refused."""
    value = fields.get("client_order_id") if fields else None
    return value if isinstance(value, str) and value else None


def read_ticket(
    fields: Mapping[str, object] | None, tick_of: Callable[[str, AssetClass, Decimal], Decimal]
) -> Ticket | Refusal:
    """Check the request as Alpaca does: form first, then what the asset class and the symbol's `tick_of` allow."""
    if fields is None:
        return malformed_body()
    symbol, side, order_type = fields.get("symbol"), fields.get("side"), fields.get("type", "market")
    if not isinstance(symbol, str) or not symbol:
        return invalid_field("symbol is required")
    asset_class = class_of(symbol)
    if asset_class is None:
        return unprocessable(f'asset "{symbol}" not found')
    if side not in ("buy", "sell"):
        return invalid_field("side must be buy or sell")
    if order_type not in ("market", "limit"):
        return unprocessable(f"order type {order_type} is not supported by this simulator: use market or limit")
    qty = _decimal(fields.get("qty"))
    if qty is None:
        return invalid_field("qty is required")
    if qty <= 0:
        return invalid_field("qty must be > 0")
    limit_price = _decimal(fields.get("limit_price"))
    if order_type == "limit" and (limit_price is None or limit_price <= 0):
        return invalid_field("limit orders require a limit price > 0")
    if order_type == "market" and fields.get("limit_price") is not None:
        return invalid_field("market orders must not have a limit price")
    client_order_id = client_order_id_of(fields) or str(uuid4())
    if len(client_order_id) > 128:
        return invalid_field("client_order_id must be no more than 128 characters")
    intent = fields.get("position_intent")
    if intent is not None and intent not in _INTENTS[str(side)]:
        return invalid_field(f"invalid position_intent {intent} for side {side}")
    typed_side: Side = "buy" if side == "buy" else "sell"
    typed_type: Literal["market", "limit"] = "limit" if order_type == "limit" else "market"
    time_in_force = str(fields.get("time_in_force", "day"))
    ticket = Ticket(
        client_order_id=client_order_id,
        symbol=symbol,
        asset_class=asset_class,
        side=typed_side,
        qty=qty,
        type=typed_type,
        time_in_force=time_in_force,
        limit_price=limit_price if order_type == "limit" else None,
        position_intent=None if intent is None else str(intent),
    )
    return _class_rules(ticket, tick_of) or ticket


def _class_rules(ticket: Ticket, tick_of: Callable[[str, AssetClass, Decimal], Decimal]) -> Refusal | None:
    whole = ticket.qty == ticket.qty.to_integral_value()
    tif = ticket.time_in_force
    if tif not in _TIMES_IN_FORCE[ticket.asset_class]:
        kind = {"us_equity": "equity", "us_option": "options", "crypto": "crypto"}[ticket.asset_class]
        return unprocessable(f"invalid {kind} time_in_force: {tif}")
    if ticket.asset_class == "us_option" and not whole:
        return unprocessable("qty must be a whole number for options")
    if ticket.asset_class == "us_equity" and not whole and tif != "day":
        return unprocessable("fractional orders must be DAY orders")
    limit = ticket.limit_price
    if limit is not None and limit % tick_of(ticket.symbol, ticket.asset_class, limit):
        price = plain(limit)
        return unprocessable(
            f"invalid limit_price {price}. sub-penny increment does not fulfill minimum pricing criteria"
        )
    return None


def _decimal(value: object) -> Decimal | None:
    """Alpaca takes numbers as strings and as JSON numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
