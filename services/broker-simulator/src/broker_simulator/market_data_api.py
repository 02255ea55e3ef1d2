"""The market data routes: latest quotes and trades in bulk, per asset class."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .answers import Json, hang, refusal_answer
from .assets import AssetClass
from .errors import Refusal, invalid_field
from .quotes import quote_json, trade_json
from .trading_api import exchange_of

_PATHS: dict[AssetClass, str] = {
    "us_equity": "/v2/stocks/{}/latest",
    "us_option": "/v1beta1/options/{}/latest",
    "crypto": "/v1beta3/crypto/us/latest/{}",
}


def _latest(what: str, asset_class: AssetClass) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        symbols = [symbol for symbol in request.query_params.get("symbols", "").split(",") if symbol]
        if not symbols:
            return refusal_answer(invalid_field("symbols is required"))
        refusal = await _spoiled(request, symbols)
        return refusal_answer(refusal) if refusal is not None else Json({what: _found(request, symbols)})

    def _found(request: Request, symbols: list[str]) -> dict[str, object]:
        exchange = exchange_of(request)
        now_us = exchange.ticker.next_us()
        found: dict[str, object] = {}
        for symbol in symbols:
            quote = exchange.quotes.quote(symbol, now_us)
            if quote is not None and what == "quotes":
                found[symbol] = quote_json(quote, asset_class)
            elif quote is not None and quote.last is not None:
                found[symbol] = trade_json(quote.last, now_us, asset_class)
        return found

    return answer


async def _spoiled(request: Request, symbols: list[str]) -> Refusal | None:
    """One symbol spoils the call for all of them, as at Alpaca one that is not valid does."""
    pins = exchange_of(request).quotes.pins
    for symbol in symbols:
        pin = pins.get(symbol)
        if pin is None or pin.spoils is None:
            continue
        if pin.spoils == "refuse":
            return Refusal(400, 40010000, f"invalid symbol: {symbol}")
        if pin.spoils == "hang":
            await hang(request.receive)
        await asyncio.sleep(pin.delay_s)
    return None


MARKET_DATA_ROUTES = [
    Route(path.format(what), _latest(what, asset_class), methods=["GET"])
    for asset_class, path in _PATHS.items()
    for what in ("quotes", "trades")
]
