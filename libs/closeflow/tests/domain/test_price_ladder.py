"""The price ladder: from the touch to the bound, rung by rung, whatever the quote."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from closeflow.domain import lots
from closeflow.domain.close import pricing, quotes
from closeflow.domain.close.ticks import CLASSES, COARSER, TICKS, tick_above, tick_below, tick_size
from closeflow.domain.market_data import Quote
from closeflow.domain.model import AssetType, Side, TimeInForce

from .builders import NOW

STOCK, OPTION, CRYPTO = AssetType.STOCK, AssetType.OPTION, AssetType.CRYPTO
SELL, BUY = Side.SELL, Side.BUY

RUNGS: dict[str, tuple[AssetType, Side, int | None, int, int, str | None]] = {
    "rung 1 of a sell is the bid": (STOCK, SELL, 100, 1, 3, "99.90"),
    "the middle one is half way to the bound": (STOCK, SELL, 100, 2, 3, "99.45"),
    "the last one is the bound": (STOCK, SELL, 100, 3, 3, "99.00"),
    "whatever comes after it too": (STOCK, SELL, 100, 7, 3, "99.00"),
    "a buy goes the other way": (STOCK, BUY, 100, 2, 3, "100.55"),
    "and ends at its bound": (STOCK, BUY, 100, 3, 3, "101.00"),
    "an option has steps of five cents": (OPTION, SELL, 100, 2, 3, "99.45"),
    "a ladder of one rung is the touch": (STOCK, SELL, 100, 1, 1, "99.90"),
    "also when it is tried once more": (STOCK, SELL, 100, 2, 1, "99.90"),
    "without a bound the first is the touch all the same": (STOCK, SELL, 10_000, 1, 3, "99.90"),
    "without a bound the last is a market order": (STOCK, SELL, 10_000, 3, 3, None),
    "for a buy too": (CRYPTO, BUY, 10_000, 3, 3, None),
    "but not where it is the first as well": (STOCK, BUY, 10_000, 1, 1, "100.10"),
    "a bound just below that stays a limit": (STOCK, BUY, 9_999, 3, 3, "199.99"),
}


@pytest.mark.parametrize(("asset", "side", "bps", "rung", "rungs", "limit"), RUNGS.values(), ids=RUNGS)
def test_rungs(asset: AssetType, side: Side, bps: int | None, rung: int, rungs: int, limit: str | None) -> None:
    quote = Quote(symbol="AAPL", bid=Decimal("99.90"), ask=Decimal("100.10"), at=NOW)
    priced = pricing.ladder_price(asset, side, quote, bps, rung=rung, rungs=rungs)
    assert isinstance(priced, pricing.Priced)
    assert priced.limit == (None if limit is None else Decimal(limit))


def test_an_order_is_measured_at_the_higher_of_its_limit_and_the_touch() -> None:
    quote = Quote(symbol="AAPL", bid=Decimal("99.90"), ask=Decimal("100.10"), at=NOW)

    def worth(side: Side, rung: int) -> Decimal | None:
        priced = pricing.ladder_price(STOCK, side, quote, 100, rung=rung, rungs=3)
        return priced.worth if isinstance(priced, pricing.Priced) else None

    assert [worth(SELL, rung) for rung in (1, 3)] == [Decimal("99.90")] * 2
    assert [worth(BUY, rung) for rung in (1, 3)] == [Decimal("100.10"), Decimal("101.00")]
    assert pricing.at_market(BUY, quote) == pricing.Priced(None, Decimal("100.10"))


def test_a_crossed_quote_is_no_price_for_any_rung() -> None:
    quote = Quote(symbol="AAPL", bid=Decimal(101), ask=Decimal(100), at=NOW)
    crossed = quotes.Unpriced("crossed_quote")
    assert pricing.ladder_price(STOCK, SELL, quote, 10_000, rung=3, rungs=3) == crossed
    assert pricing.at_market(SELL, quote) == crossed


ASSETS = st.sampled_from(AssetType)
SIDES = st.sampled_from(Side)
BOUNDS = st.one_of(st.none(), st.integers(min_value=0, max_value=9_999))
PRICES = st.decimals(min_value="0.0001", max_value="5000", places=5)
LADDERS = st.integers(min_value=1, max_value=8)


@st.composite
def a_quote(draw: st.DrawFn) -> Quote:
    bid = draw(PRICES)
    return Quote(symbol="AAPL", bid=bid, ask=bid + draw(st.decimals(min_value=0, max_value=20, places=5)), at=NOW)


def mid_of(quote: Quote) -> Decimal:
    assert quote.bid is not None
    assert quote.ask is not None
    return (quote.bid + quote.ask) / 2


def reach_of(asset: AssetType, side: Side, quote: Quote) -> Decimal:
    assert quote.bid is not None
    assert quote.ask is not None
    return tick_below(TICKS[asset], quote.bid) if side is SELL else tick_above(TICKS[asset], quote.ask)


def limits(asset: AssetType, side: Side, quote: Quote, bps: int | None, rungs: int) -> list[Decimal]:
    found = [pricing.ladder_price(asset, side, quote, bps, rung=rung, rungs=rungs) for rung in range(1, rungs + 1)]
    assume(all(isinstance(one, pricing.Priced) for one in found))
    return [one.limit for one in found if isinstance(one, pricing.Priced) and one.limit is not None]


@given(ASSETS, SIDES, a_quote(), BOUNDS, LADDERS)
def test_every_rung_is_on_the_tick_and_within_the_bound(
    asset: AssetType, side: Side, quote: Quote, bps: int | None, rungs: int
) -> None:
    share = Decimal(pricing.DEFAULT_SLIPPAGE_BPS[asset] if bps is None else bps) / 10_000
    mid = mid_of(quote)
    for limit in limits(asset, side, quote, bps, rungs):
        assert limit % tick_size(TICKS[asset], limit) == 0
        reach = reach_of(asset, side, quote)  # The touch itself where that is as near to the mid as prices go.
        if side is SELL:
            assert min(mid * (1 - share), reach) <= limit <= reach, "and it can be filled"
        else:
            assert reach <= limit <= max(mid * (1 + share), reach), "and it can be filled"


@given(ASSETS, SIDES, a_quote(), BOUNDS, LADDERS)
def test_a_higher_rung_never_asks_for_a_better_price(
    asset: AssetType, side: Side, quote: Quote, bps: int | None, rungs: int
) -> None:
    found = limits(asset, side, quote, bps, rungs)
    assert found == sorted(found, reverse=side is SELL)


@given(a_quote(), BOUNDS, st.integers(min_value=2, max_value=8))
def test_the_last_rung_is_at_the_bound(quote: Quote, bps: int | None, rungs: int) -> None:
    share = Decimal(pricing.DEFAULT_SLIPPAGE_BPS[STOCK] if bps is None else bps) / 10_000
    mid = mid_of(quote)
    bound = tick_above(TICKS[STOCK], mid * (1 - share))
    assert limits(STOCK, SELL, quote, bps, rungs)[-1] == min(bound, reach_of(STOCK, SELL, quote))


@given(
    st.integers(min_value=10_000, max_value=500_000),
    st.integers(min_value=0, max_value=500),
    st.integers(min_value=0, max_value=5_000),
    LADDERS,
)
def test_a_short_position_is_priced_as_the_mirror_of_a_long_one(bid: int, spread: int, bps: int, rungs: int) -> None:
    """What a sell gives up below mid a buy pays above it; in a range of one tick, else the grid is not symmetrical."""
    quote = Quote(symbol="AAPL", bid=Decimal(bid) / 100, ask=Decimal(bid + spread) / 100, at=NOW)
    sells, buys = (limits(STOCK, side, quote, bps, rungs) for side in (SELL, BUY))
    assert [2 * mid_of(quote) - one for one in sells] == buys


@given(ASSETS, SIDES, PRICES)
def test_the_users_limit_is_on_the_tick_and_never_crossed(asset: AssetType, side: Side, asked: Decimal) -> None:
    priced = pricing.users_limit(side, asked, TICKS[asset])
    if not isinstance(priced, pricing.Priced) or priced.limit is None:
        assert side is BUY
        return
    assert priced.limit % tick_size(TICKS[asset], priced.limit) == 0
    assert priced.limit >= asked if side is SELL else priced.limit <= asked


def test_every_asset_type_is_in_every_table() -> None:
    for asset in AssetType:
        for grid in (TICKS[asset], COARSER[asset], *CLASSES.values()):
            starts = [start for start, _ in grid]
            assert starts == sorted(starts, reverse=True)
            assert starts[-1] == 0
            assert all(start % tick == 0 for start, tick in grid), "a band begins on its own grid"
        assert lots.LOTS[asset] > 0
        assert 0 < pricing.DEFAULT_SLIPPAGE_BPS[asset] < quotes.NO_BOUND_BPS


TIMES: dict[tuple[AssetType, bool], dict[TimeInForce, TimeInForce]] = {
    (STOCK, True): {one: one for one in TimeInForce},
    (STOCK, False): dict.fromkeys(TimeInForce, TimeInForce.DAY),
    (OPTION, True): dict.fromkeys(TimeInForce, TimeInForce.DAY),
    (CRYPTO, True): {one: one for one in TimeInForce} | {TimeInForce.DAY: TimeInForce.GTC},
    (CRYPTO, False): {one: one for one in TimeInForce} | {TimeInForce.DAY: TimeInForce.GTC},
}


@pytest.mark.parametrize(("asset", "whole"), TIMES)
def test_the_time_in_force_is_what_the_broker_takes(asset: AssetType, whole: bool) -> None:
    quantity = Decimal(10) if whole else Decimal("10.5")
    given = {asked: pricing.time_in_force(asset, quantity, asked) for asked in TimeInForce}
    assert given == TIMES[(asset, whole)]
