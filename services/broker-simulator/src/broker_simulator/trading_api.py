"""The Trading API routes (`/v2/...`)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .answers import Json, NoAnswer, SpoiledAnswer, refusal_answer
from .assets import account_uuid, asset_json, class_of
from .behaviour import Accept, AcceptLate, AcceptSilently, AcceptThenFail, Reject
from .errors import Refusal, invalid_field, order_not_found, position_not_found, unprocessable
from .exchange import Accepted, Exchange, Held
from .listing import read_activity_query, read_order_query, select_activities, select_orders
from .market_clock import clock_json
from .non_trade import page_of
from .numbers import rfc3339
from .orders import order_json
from .positions import Position, position_json


def exchange_of(request: Request) -> Exchange:
    """The broker behind the route."""
    exchange = request.app.state.exchange
    assert isinstance(exchange, Exchange)
    return exchange


async def post_order(request: Request) -> Response:
    """`POST /v2/orders`: 200 with the order, or a refusal; scripted orders are held, or their answers spoiled."""
    exchange = exchange_of(request)
    outcome = exchange.submit(await request.body())
    if isinstance(outcome, Held):
        # Not tied to the connection: the order is accepted although nobody waits for the answer any more.
        await asyncio.sleep(outcome.hold_s)
        outcome = exchange.accept_held(outcome)
    if isinstance(outcome, Refusal):
        return refusal_answer(outcome)
    return await _acceptance(outcome)


async def _acceptance(accepted: Accepted) -> Response:
    body = order_json(accepted.order)
    match accepted.answer:
        case AcceptSilently(answer_after_s=None):
            return NoAnswer()
        case AcceptSilently(answer_after_s=float(delay_s)):
            await asyncio.sleep(delay_s)
            return Json(body)
        case AcceptThenFail(how=how):
            return SpoiledAnswer(how, orjson.dumps(body))
        case Accept() | AcceptLate() | Reject() | AcceptSilently():
            return Json(body)
        case _:
            assert_never(accepted.answer)


async def get_order_by_client_id(request: Request) -> Response:
    """`GET /v2/orders:by_client_order_id`: the newest order of this id, or 404."""
    client_order_id = request.query_params.get("client_order_id", "")
    order = exchange_of(request).find_by_client_id(client_order_id)
    return Json(order_json(order)) if order else refusal_answer(order_not_found(client_order_id))


async def get_order(request: Request) -> Response:
    """`GET /v2/orders/{order_id}`."""
    order_id = request.path_params["order_id"]
    order = exchange_of(request).find(order_id)
    return Json(order_json(order)) if order else refusal_answer(order_not_found(order_id))


async def list_orders(request: Request) -> Response:
    """`GET /v2/orders`."""
    exchange = exchange_of(request)
    query = read_order_query(request.query_params)
    if isinstance(query, Refusal):
        return refusal_answer(query)
    return Json([order_json(order) for order in select_orders(exchange.book, query, exchange.is_visible)])


async def cancel_order(request: Request) -> Response:
    """`DELETE /v2/orders/{order_id}`: 204 when the cancel is taken."""
    refusal = exchange_of(request).cancel(request.path_params["order_id"])
    return refusal_answer(refusal) if refusal else Response(status_code=204)


async def cancel_all_orders(request: Request) -> Response:
    """`DELETE /v2/orders`: 207 with what became of each."""
    exchange = exchange_of(request)
    results = []
    for order in list(exchange.book.open_orders()):
        refusal = exchange.cancel(order.id)
        body = refusal.body() if refusal else order_json(exchange.book.orders[order.id])
        results.append({"id": order.id, "status": refusal.status if refusal else 200, "body": body})
    return Json(results, 207)


async def list_positions(request: Request) -> Response:
    """`GET /v2/positions`."""
    exchange = exchange_of(request)
    return Json([_position(exchange, position) for position in exchange.book.positions.values()])


async def get_position(request: Request) -> Response:
    """`GET /v2/positions/{symbol}`, with or without the slash of a pair; 404 when nothing is held."""
    exchange = exchange_of(request)
    asked = request.path_params["symbol"].replace("/", "")
    for position in exchange.book.positions.values():
        if position.symbol.replace("/", "") == asked:
            return Json(_position(exchange, position))
    return refusal_answer(position_not_found())


def _position(exchange: Exchange, position: Position) -> dict[str, object]:
    quote = exchange.quotes.quote(position.symbol, exchange.ticker.next_us())
    price = quote.mid if quote else position.avg_entry_price
    return position_json(position, price=price, held=exchange.book.held(position))


async def list_activities(request: Request) -> Response:
    """`GET /v2/account/activities`: fills, or with `category=non_trade_activity` what else changed the account."""
    exchange = exchange_of(request)
    if request.query_params.get("category") == "non_trade_activity":
        return _list_non_trades(request)
    kind = request.path_params.get("activity_type") or request.query_params.get("activity_types", "FILL")
    if kind != "FILL":
        return refusal_answer(invalid_field(f"invalid activity type: {kind}; this simulator has FILL only"))
    query = read_activity_query(request.query_params)
    if isinstance(query, Refusal):
        return refusal_answer(query)
    chosen = select_activities(
        exchange.book, query, exchange.conduct, account_uuid(exchange.account), exchange.is_listed
    )
    return refusal_answer(chosen) if isinstance(chosen, Refusal) else Json(chosen)


def _list_non_trades(request: Request) -> Response:
    query = read_activity_query(request.query_params)
    if isinstance(query, Refusal):
        return refusal_answer(query)
    after_day = None if query.after_us is None else rfc3339(query.after_us)[:10]
    listed = exchange_of(request).non_trades
    return Json(page_of(listed, after_day=after_day, page_token=query.page_token, page_size=query.page_size))


async def get_clock(request: Request) -> Response:
    """`GET /v2/clock`."""
    exchange = exchange_of(request)
    return Json(clock_json(exchange.hours, exchange.ticker.next_us()))


async def get_account(request: Request) -> Response:
    """`GET /v2/account`, as far as a client looks at it."""
    exchange = exchange_of(request)
    return Json(
        {
            "id": account_uuid(exchange.account),
            "account_number": exchange.account,
            "status": "ACTIVE",
            "crypto_status": "ACTIVE",
            "currency": "USD",
            "cash": "1000000",
            "buying_power": "1000000",
            "portfolio_value": "1000000",
            "equity": "1000000",
            "last_equity": "1000000",
            "trading_blocked": False,
            "transfers_blocked": False,
            "account_blocked": False,
            "trade_suspended_by_user": False,
            "shorting_enabled": True,
            "multiplier": "1",
            "created_at": rfc3339(0),
        }
    )


async def get_asset(request: Request) -> Response:
    """`GET /v2/assets/{symbol}`."""
    return _instrument(request, "asset")


async def get_option_contract(request: Request) -> Response:
    """`GET /v2/options/contracts/{symbol}`."""
    return _instrument(request, "option contract")


def _instrument(request: Request, what: str) -> Response:
    symbol = request.path_params["symbol"]
    asset_class = class_of(symbol)
    pin = exchange_of(request).quotes.pins.get(symbol)
    listed = pin.listed if pin is not None else "active"
    if asset_class is None or listed == "unknown":
        return refusal_answer(Refusal(404, 40410000, f"{what} not found for {symbol}"))
    return Json({**asset_json(symbol, asset_class), "status": listed})


async def list_assets(request: Request) -> Response:
    """The assets of the positions: this broker knows every well-formed symbol, so it cannot list them all."""
    positions = exchange_of(request).book.positions.values()
    return Json([asset_json(position.symbol, position.asset_class) for position in positions])


async def refuse_close_position(request: Request) -> Response:
    """`DELETE /v2/positions/…` is not offered: it takes no client order id, so it could not be repeated safely."""
    return refusal_answer(unprocessable("closing by position takes no client order id; send an order instead"))


def _without_query(change: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """What changes something takes its arguments from path and body; others would be dropped."""

    async def answer(request: Request) -> Response:
        if request.url.query:
            return refusal_answer(invalid_field(f"unknown parameters: {request.url.query[:200]}"))
        return await change(request)

    return answer


TRADING_ROUTES = [
    Route("/v2/orders", _without_query(post_order), methods=["POST"]),
    Route("/v2/orders:by_client_order_id", get_order_by_client_id, methods=["GET"]),
    Route("/v2/orders/{order_id}", get_order, methods=["GET"]),
    Route("/v2/orders/{order_id}", _without_query(cancel_order), methods=["DELETE"]),
    Route("/v2/orders", list_orders, methods=["GET"]),
    Route("/v2/orders", _without_query(cancel_all_orders), methods=["DELETE"]),
    Route("/v2/positions", list_positions, methods=["GET"]),
    Route("/v2/positions/{symbol:path}", get_position, methods=["GET"]),
    Route("/v2/positions/{symbol:path}", refuse_close_position, methods=["DELETE"]),
    Route("/v2/account", get_account, methods=["GET"]),
    Route("/v2/account/activities", list_activities, methods=["GET"]),
    Route("/v2/account/activities/{activity_type}", list_activities, methods=["GET"]),
    Route("/v2/clock", get_clock, methods=["GET"]),
    Route("/v2/options/contracts/{symbol}", get_option_contract, methods=["GET"]),
    Route("/v2/assets", list_assets, methods=["GET"]),
    Route("/v2/assets/{symbol:path}", get_asset, methods=["GET"]),
]
