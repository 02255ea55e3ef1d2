"""Which quote is new enough to price an order by, and which is the newest there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from closeflow.domain.market_data import Quote
from closeflow.domain.model import ZERO, AssetType

STANDING_QUOTE_MAX_AGE_S: Final = {AssetType.STOCK: 300.0, AssetType.OPTION: 3600.0, AssetType.CRYPTO: 300.0}
"""Of a quote that was asked for again and is the newest there is: in a thin market nobody changes one for long."""


def fresh(quote: Quote | None, waited_s: float, *, max_age_s: float, standing_max_age_s: float) -> Quote | None:
    """The quote if it is fresh, or if it stands: nobody has changed it, and no later trade went through it. `waited_s`
    is how long ago it was as old as it says."""
    if quote is None:
        return None
    age_s = quote.age_s + waited_s
    stands = quote.standing and age_s <= standing_max_age_s and not traded_through(quote)
    return quote if age_s <= max_age_s or stands else None


def of_any_age(quote: Quote | None) -> Quote | None:
    """What a market order is worth needs no fresh quote: an old one will do, or the last trade where it says more."""
    if quote is None or quote.last_trade is None:
        return quote
    nobody = quote.bid is None and quote.ask is None
    last = quote.last_trade.price
    return replace(quote, bid=last, ask=last) if nobody or traded_through(quote) else quote


def traded_through(quote: Quote) -> bool:
    """Whether a trade after the quote was beyond it by more than its spread: then it does not stand any more."""
    last = quote.last_trade
    if last is None or last.at <= quote.at:
        return False
    slack = quote.ask - quote.bid if quote.bid is not None and quote.ask is not None else ZERO
    below = quote.bid is not None and last.price < quote.bid - slack
    return below or (quote.ask is not None and last.price > quote.ask + slack)
