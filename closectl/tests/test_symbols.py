"""Symbols as files spell them: what is certain is written as the broker does, the rest is refused with a suggestion."""

from __future__ import annotations

import pytest

from closectl.symbols import canonical, spellings
from closeflow.domain.model import AssetType

STOCK, OPTION, CRYPTO = AssetType.STOCK, AssetType.OPTION, AssetType.CRYPTO

CERTAIN: list[tuple[AssetType, str, str]] = [
    (STOCK, "AAPL", "AAPL"),
    (STOCK, "aapl", "AAPL"),
    (STOCK, "BRK.B", "BRK.B"),
    (STOCK, "BRK B", "BRK.B"),
    (STOCK, "brk b", "BRK.B"),
    (STOCK, "BRK/B", "BRK.B"),
    (STOCK, "BRK-B", "BRK.B"),
    (STOCK, "BRK  B", "BRK.B"),
    (STOCK, "AACT.WS", "AACT.WS"),
    (STOCK, "F", "F"),
    (OPTION, "AAPL270119C00150000", "AAPL270119C00150000"),
    (OPTION, "AAPL  270119C00150000", "AAPL270119C00150000"),
    (OPTION, "F     270119P00012500", "F270119P00012500"),
    (OPTION, "aapl  270119c00150000", "AAPL270119C00150000"),
    (OPTION, "SPXW  270119C05000000", "SPXW270119C05000000"),
    (OPTION, "AAPL1 270119C00150000", "AAPL1270119C00150000"),
    (OPTION, "O:AAPL270119C00150000", "AAPL270119C00150000"),
    (OPTION, "BRKB  270119C00150000", "BRKB270119C00150000"),
    (CRYPTO, "BTC/USD", "BTC/USD"),
    (CRYPTO, "BTCUSD", "BTC/USD"),
    (CRYPTO, "btcusd", "BTC/USD"),
    (CRYPTO, "BTC-USD", "BTC/USD"),
    (CRYPTO, "BTC_USD", "BTC/USD"),
    (CRYPTO, "BTC USD", "BTC/USD"),
    (CRYPTO, "BTCUSDT", "BTC/USDT"),
    (CRYPTO, "ETHBTC", "ETH/BTC"),
    (CRYPTO, "USDTUSD", "USDT/USD"),
]


@pytest.mark.parametrize(("asset", "spelled", "symbol"), CERTAIN)
def test_what_is_certain_is_written_as_the_broker_does(asset: AssetType, spelled: str, symbol: str) -> None:
    assert canonical(asset, spelled) == symbol


UNCERTAIN: list[tuple[AssetType, str, str]] = [
    (STOCK, "AAPL270119C00150000", "is an option's symbol; its asset_type is option"),
    (STOCK, "AAPL  270119C00150000", "is an option's symbol; its asset_type is option"),
    (STOCK, "BTC/USD", "is a pair's symbol; its asset_type is crypto"),
    (STOCK, "BTCUSD", "is a pair's symbol; its asset_type is crypto"),
    (STOCK, "BACpL", "has upper and lower case; a share is written as AAPL or BRK.B"),
    (STOCK, "AAPL US", "is not a share's symbol, which is written as AAPL or BRK.B; is it AAPL?"),
    (STOCK, "AAPL US Equity", "is not a share's symbol, which is written as AAPL or BRK.B; is it AAPL?"),
    (STOCK, "AAPL.US", "is not a share's symbol, which is written as AAPL or BRK.B; is it AAPL?"),
    (STOCK, "0700.HK", "is not a share's symbol, which is written as AAPL or BRK.B"),
    (STOCK, "US0378331005", "is not a share's symbol, which is written as AAPL or BRK.B"),
    (STOCK, "Straße", "is not a share's symbol, which is written as AAPL or BRK.B"),
    (STOCK, "ß", "is not a share's symbol, which is written as AAPL or BRK.B"),
    (STOCK, "$AAPL", "is not a share's symbol, which is written as AAPL or BRK.B; is it AAPL?"),
    (OPTION, "AAPL", "is not an option's symbol, which is written as AAPL270119C00150000"),
    (OPTION, "AAPL270119C150", "is not an option's symbol, which is written as .*; is it AAPL270119C00150000?"),
    (OPTION, "-AAPL270119C150", "is not an option's symbol, which is written as .*; is it AAPL270119C00150000?"),
    (OPTION, ".AAPL270119P12.5", "is not an option's symbol, which is written as .*; is it AAPL270119P00012500?"),
    (OPTION, "AAPL 01/19/2027 150.00 C", "is not an option's symbol, which .*; is it AAPL270119C00150000?"),
    (OPTION, "AAPL 01/19/27 P 7.5", "is not an option's symbol, which .*; is it AAPL270119P00007500?"),
    (OPTION, "AAPL 19JAN27 150 C", "is not an option's symbol, which .*; is it AAPL270119C00150000?"),
    (OPTION, "AAPL JAN 19 2027 150 CALL", "is not an option's symbol, which .*; is it AAPL270119C00150000?"),
    (OPTION, "AAPL271345C00150000", "has no such day as 271345"),
    (OPTION, "AAPL270119C00000000", "has a strike of 0"),
    (CRYPTO, "BTC", "is not a pair's symbol, which is written as BTC/USD; is it BTC/USD?"),
    (CRYPTO, "PYUSD", "is not a pair's symbol, which is written as BTC/USD; is it PYUSD/USD?"),
    (CRYPTO, "CBBTC", "is not a pair's symbol, which is written as BTC/USD; is it CBBTC/USD?"),
    (CRYPTO, "BTC/BTC", "is a pair of BTC with itself"),
    (CRYPTO, "USDUSD", "is a pair of USD with itself"),
    (CRYPTO, "USD", "is not a pair's symbol, which is written as BTC/USD"),
    (CRYPTO, "BTC/USD/X", "is not a pair's symbol, which is written as BTC/USD"),
    (CRYPTO, "Bitcoin", "is not a pair's symbol, which is written as BTC/USD"),
    (CRYPTO, "AAPL270119C00150000", "is an option's symbol; its asset_type is option"),
]


@pytest.mark.parametrize(("asset", "spelled", "problem"), UNCERTAIN)
def test_the_rest_is_refused_with_a_suggestion(asset: AssetType, spelled: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("?", r"\?")):
        canonical(asset, spelled)


@pytest.mark.parametrize(("asset", "spelled", "symbol"), CERTAIN)
def test_a_canonical_symbol_stays_what_it_is(asset: AssetType, spelled: str, symbol: str) -> None:
    assert canonical(asset, symbol) == symbol


def test_other_spellings_of_a_symbol_lead_back_to_it() -> None:
    assert "AAPL  270119C00150000" in spellings(OPTION, "AAPL270119C00150000")
    assert {"BRK B", "brk.b", "BRK/B"} <= spellings(STOCK, "BRK.B")
    assert {"BTCUSD", "btcusd", "BTC-USD"} <= spellings(CRYPTO, "BTC/USD")
    for asset, _, symbol in CERTAIN:
        assert {canonical(asset, one) for one in spellings(asset, symbol)} == {symbol}
