"""Alpaca's market data: where it is asked for in bulk, and what its answers hold for each symbol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import structlog

from closeflow.broker.alpaca import parse
from closeflow.domain.market_data import LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType

log = structlog.get_logger()

_T = TypeVar("_T")

PATHS: Final = {
    AssetType.STOCK: "/v2/stocks/{}/latest",
    AssetType.OPTION: "/v1beta1/options/{}/latest",
    AssetType.CRYPTO: "/v1beta3/crypto/us/latest/{}",
}


def readable_ones(
    listed: Mapping[str, object], symbols: Sequence[str], read: Callable[[str, parse.Json], _T | None]
) -> Mapping[str, _T]:
    """Each symbol's own; one that cannot be read is absent and costs the others nothing."""
    found: dict[str, _T] = {}
    for symbol in symbols:
        if listed.get(symbol) is None:
            continue
        try:
            one = read(symbol, parse.as_object(listed[symbol], "it"))
        except parse.Malformed as error:
            log.warning("market_data_not_readable", symbol=symbol, reason=str(error))
            continue
        if one is not None:
            found[symbol] = one
    return found


def quote(symbol: str, of: parse.Json, *, asked_at: datetime) -> Quote | None:
    """None without any side: Alpaca states a missing bid or ask as 0. `asked_at` is the time of the answer by the
    market data's clock."""
    stated = (parse.optional_number(of, "bp"), parse.optional_number(of, "ap"))
    bid, ask = (price if price is not None and price > 0 else None for price in stated)
    if bid is None and ask is None:
        return None
    at = parse.time(of, "t")
    return Quote(symbol=symbol, bid=bid, ask=ask, at=at, age_s=max(0.0, (asked_at - at).total_seconds()))


def last_trade(of: parse.Json) -> LastTrade:
    """Raises Malformed for what is none, a price of 0 among it."""
    price = parse.number(of, "p")
    if price <= 0:
        raise parse.Malformed("p is not a price")
    return LastTrade(price, parse.time(of, "t"))


def market_clock(of: parse.Json) -> MarketClock:
    """The answer of `/v2/clock`: the hours of the stock market alone. Raises Malformed."""
    is_open = of.get("is_open")
    if not isinstance(is_open, bool):
        raise parse.Malformed("is_open is not true or false")
    return MarketClock(is_open=is_open, next_open=parse.time(of, "next_open"), at=parse.time(of, "timestamp"))
