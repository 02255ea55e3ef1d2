"""Refusals in Alpaca's shape: an HTTP status and a body `{"code", "message", ...}`.

Codes and messages are those that Alpaca's Trading API sends; clients tell refusals apart by both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from .numbers import plain


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that accepts nothing. `retry_after_s` becomes the Retry-After header, unless `headers` are given."""

    status: int
    code: int
    message: str
    retry_after_s: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """As Alpaca writes it: its code, its words, its details."""
        return {"code": self.code, "message": self.message, **self.details}


def malformed_body() -> Refusal:
    """The body is no JSON object."""
    return Refusal(400, 40010000, "request body format is invalid")


def invalid_field(message: str) -> Refusal:
    """A field or parameter that cannot be read."""
    return Refusal(422, 40010001, message)


def unprocessable(message: str) -> Refusal:
    """Readable, but not what can be done now."""
    return Refusal(422, 42210000, message)


def duplicate_client_order_id() -> Refusal:
    """Alpaca's words for a client order id that it has seen."""
    return Refusal(422, 40010001, "client_order_id must be unique")


def insufficient_quantity(symbol: str, *, requested: Decimal, existing: Decimal, held: Decimal) -> Refusal:
    """More than is held beside what other open orders hold; the figures are in the body."""
    available = max(existing - held, Decimal(0))
    return Refusal(
        403,
        40310000,
        f"insufficient qty available for order (requested: {plain(requested)}, available: {plain(available)})",
        details={
            "available": plain(available),
            "existing_qty": plain(existing),
            "held_for_orders": plain(held),
            "symbol": symbol,
        },
    )


def order_not_found(what: str) -> Refusal:
    """The one 404 that speaks about an order."""
    return Refusal(404, 40410000, f"order not found for {what}")


def position_not_found() -> Refusal:
    """Nothing is held of the symbol."""
    return Refusal(404, 40410000, "position does not exist")


def not_cancelable(status: str) -> Refusal:
    """The order is over, or its cancel is under way."""
    return unprocessable(f'order is already in "{status}" state')


def unauthorized() -> Refusal:
    """No key, or another one."""
    return Refusal(401, 40110000, "request is not authorized")


def forbidden() -> Refusal:
    """A blocked account: no call of it passes."""
    return Refusal(403, 40310000, "account is restricted: trading is blocked")


def account_refused(message: str) -> Refusal:
    """The account takes no new order; everything else passes."""
    return Refusal(403, 40310000, message)


def rate_limited(headers: Mapping[str, str]) -> Refusal:
    """More calls than the limit; the headers say when to come again."""
    return Refusal(429, 42910000, "rate limit exceeded", headers=headers)


def no_such_endpoint(path: str) -> Refusal:
    """A 404 that says nothing about any order."""
    return Refusal(404, 40410000, f"endpoint not found: {path}")
