"""Quotes: a seeded random walk per symbol, or a pinned quote."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from random import Random
from typing import Literal

from pydantic import Field, TypeAdapter, model_validator

from .assets import AssetClass, class_of, tick_of
from .behaviour import Quantity, Seconds, Spec
from .numbers import rfc3339
from .orders import Order

_START_PRICES: Mapping[AssetClass, tuple[float, float]] = {
    "us_equity": (20, 400),
    "us_option": (0.5, 20),
    "crypto": (0.5, 60_000),
}
_HALF_SPREAD = 0.0004
_STEP_DEVIATION = 0.0003


@dataclass(frozen=True, slots=True)
class Quote:
    """A side that nobody quotes is None; so is the last trade of a pinned quote that names none."""

    bid: Decimal | None
    ask: Decimal | None
    at_us: int
    last: Decimal | None = None

    @property
    def mid(self) -> Decimal:
        """The middle of bid and ask, or the side that there is."""
        sides = [side for side in (self.bid, self.ask) if side is not None]
        return sum(sides, Decimal(0)) / len(sides)


class Pin(Spec):
    """A quote that stays, of both sides or of one. With `age_s` it was that old when it was pinned, and gets older;
    without, it is always fresh. `missing`: the broker has no quote at all.

    `spoils`: every market data call that names the symbol is refused (`refuse`), answers after `delay_s`, or never
    does (`hang`). `listed`: what the broker's list of instruments says of it. With `tick` limits that are no multiple
    of it are refused, as for an option class in nickels.
    """

    bid: Quantity | None = None
    ask: Quantity | None = None
    age_s: Seconds = 0
    pinned_us: int = Field(default_factory=lambda: time.time_ns() // 1000)
    last: Quantity | None = None
    missing: bool = False
    tick: Quantity | None = None
    spoils: Literal["refuse", "delay", "hang"] | None = None
    delay_s: Seconds = 1
    listed: Literal["active", "inactive", "unknown"] = "active"

    @model_validator(mode="after")
    def _complete(self) -> "Pin":
        if self.missing or self.spoils in ("refuse", "hang"):
            return self
        if self.bid is None and self.ask is None:
            raise ValueError("a pinned quote needs a bid or an ask, crossed or not; or missing: true")
        return self


PINS = TypeAdapter(dict[str, Pin])


def marketable_price(order: Order, quote: Quote) -> Decimal | None:
    """The price at which this order executes now: the touch on the other side, None when the limit forbids it."""
    touch = quote.bid if order.ticket.side == "sell" else quote.ask
    if touch is None:
        return None
    limit = order.ticket.limit_price
    if limit is None:
        return touch
    crosses = touch >= limit if order.ticket.side == "sell" else touch <= limit
    return touch if crosses else None


class Walk:
    """A price that moves by a small random factor at every tick; the same seed and symbol give the same walk."""

    def __init__(self, seed: int, symbol: str, asset_class: AssetClass) -> None:
        self._random = Random(f"{seed}:{symbol}")
        self._asset_class = asset_class
        low, high = _START_PRICES[asset_class]
        self._price = math.exp(self._random.uniform(math.log(low), math.log(high)))
        self._floor = low / 10

    def step(self) -> None:
        """Move the price by one step of the random walk; it never falls below a floor."""
        self._price = max(self._floor, self._price * math.exp(self._random.gauss(0, _STEP_DEVIATION)))

    def quote(self, at_us: int) -> Quote:
        """Bid and ask around the price, on the tick, and never equal."""
        tick = tick_of(self._asset_class, Decimal(self._price))
        bid = (Decimal(self._price * (1 - _HALF_SPREAD)) / tick).to_integral_value(ROUND_DOWN) * tick
        ask = (Decimal(self._price * (1 + _HALF_SPREAD)) / tick).to_integral_value(ROUND_UP) * tick
        ask = max(ask, bid + tick)
        return Quote(bid, ask, at_us, bid)


class QuoteBoard:
    """Every symbol's quote. Walks begin when a symbol is first asked for, and again from their start at a restart."""

    def __init__(self, seed: int, pins: Mapping[str, Pin]) -> None:
        self._seed = seed
        self._walks: dict[str, Walk] = {}
        self._ticked_us: int | None = None
        self.pins = dict(pins)

    def tick(self, at_us: int) -> None:
        """Move every price that is not pinned."""
        self._ticked_us = at_us
        for walk in self._walks.values():
            walk.step()

    def tick_of(self, symbol: str, asset_class: AssetClass, price: Decimal) -> Decimal:
        """The price increment: the symbol's own where it is pinned, else its class's."""
        pin = self.pins.get(symbol)
        return tick_of(asset_class, price) if pin is None or pin.tick is None else pin.tick

    def quote(self, symbol: str, now_us: int) -> Quote | None:
        """None for a symbol of no known form, or pinned as missing."""
        pin = self.pins.get(symbol)
        if pin is not None:
            if pin.missing or (pin.bid is None and pin.ask is None):
                return None
            at_us = pin.pinned_us - int(pin.age_s * 1_000_000) if pin.age_s else now_us
            return Quote(pin.bid, pin.ask, at_us, pin.last)
        walk = self._walks.get(symbol)
        if walk is None:
            asset_class = class_of(symbol)
            if asset_class is None:
                return None
            walk = self._walks[symbol] = Walk(self._seed, symbol, asset_class)
        return walk.quote(self._ticked_us or now_us)


def quote_json(quote: Quote, asset_class: AssetClass | None) -> dict[str, object]:
    """Alpaca's market data shape; prices are JSON numbers there."""
    body: dict[str, object] = {
        "t": rfc3339(quote.at_us),
        "bp": float(quote.bid or 0),
        "bs": 100 if quote.bid else 0,
        "ap": float(quote.ask or 0),
        "as": 100 if quote.ask else 0,
    }
    if asset_class == "us_equity":
        body |= {"bx": "V", "ax": "V", "c": ["R"], "z": "C"}
    elif asset_class == "us_option":
        body |= {"bx": "C", "ax": "C", "c": "A"}
    return body


def trade_json(price: Decimal, at_us: int, asset_class: AssetClass | None) -> dict[str, object]:
    """The last trade as Alpaca's market data shows it."""
    body: dict[str, object] = {"t": rfc3339(at_us), "p": float(price), "s": 100}
    if asset_class == "us_equity":
        body |= {"x": "V", "c": ["@"], "i": 1, "z": "C"}
    elif asset_class == "us_option":
        body |= {"x": "C", "c": "a"}
    return body
