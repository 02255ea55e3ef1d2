"""The market data routes: latest quotes in bulk, per asset class."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .answers import Json, refusal_answer
from .assets import AssetClass
from .errors import invalid_field
from .quotes import quote_json
from .trading_api import exchange_of


def _latest_quotes(request: Request, asset_class: AssetClass) -> Response:
    symbols = [symbol for symbol in request.query_params.get("symbols", "").split(",") if symbol]
    if not symbols:
        return refusal_answer(invalid_field("symbols is required"))
    exchange = exchange_of(request)
    now_us = exchange.ticker.next_us()
    quotes = {}
    for symbol in symbols:
        quote = exchange.quotes.quote(symbol, now_us)
        if quote is not None:
            quotes[symbol] = quote_json(quote, asset_class)
    return Json({"quotes": quotes})


async def stock_quotes(request: Request) -> Response:
    return _latest_quotes(request, "us_equity")


async def option_quotes(request: Request) -> Response:
    return _latest_quotes(request, "us_option")


async def crypto_quotes(request: Request) -> Response:
    return _latest_quotes(request, "crypto")


MARKET_DATA_ROUTES = [
    Route("/v2/stocks/quotes/latest", stock_quotes, methods=["GET"]),
    Route("/v1beta1/options/quotes/latest", option_quotes, methods=["GET"]),
    Route("/v1beta3/crypto/us/latest/quotes", crypto_quotes, methods=["GET"]),
]
