"""The control endpoint (`/control`): scripts the broker and shows what it received.

It asks for no keys, touches nothing but this simulator, and refuses unknown fields with the name of the field.
"""

from collections import defaultdict
from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from .assets import CLASS_OF_TYPE
from .behaviour import Rule
from .calls import CallLimit, CallsSeen
from .control_models import (
    BrokerOrderSeen,
    Bust,
    Capabilities,
    Correction,
    ExecutionCharge,
    ExecutionSeen,
    NamedOrder,
    OrderSeen,
    OutageState,
    PositionSpec,
    PostSeen,
    Rescript,
    Rescripted,
    RuleState,
    StreamDrop,
    StreamSilence,
    StreamState,
)
from .edge import Outage, Outages
from .exchange import Exchange
from .market_clock import MarketHours
from .non_trade import NonTrade, charge_of
from .numbers import rfc3339
from .orders import Execution
from .positions import BadPositionsCsv, Seed, read_positions_csv
from .quotes import Pin
from .reversals import NotReversible, any_execution
from .rules import ActiveRule
from .store import Receipt


def control_app(exchange: Exchange, outages: Outages) -> FastAPI:
    """The endpoint for scripts and inspection; it needs no key and is not Alpaca's."""
    app = FastAPI(title="broker-simulator control", description=__doc__)
    _script_routes(app, exchange, outages)
    _call_routes(app, outages)
    _stream_routes(app, exchange)
    _market_routes(app, exchange)
    _inspection_routes(app, exchange)

    @app.post("/reset", status_code=204)
    async def reset() -> None:
        """Forget orders, fills, rules, outages and pins; positions are those of the positions file again."""
        outages.active.clear()
        outages.calls.reset()
        exchange.reset()

    @app.exception_handler(NotReversible)
    async def not_reversible(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    return app


def _script_routes(app: FastAPI, exchange: Exchange, outages: Outages) -> None:
    @app.post("/rules", status_code=201)
    async def add_rule(rule: Rule) -> RuleState:
        """Script the next orders. The most specific rule wins: client order id, prefix, symbol, default."""
        return _rule_state(exchange.rules.add(rule))

    @app.put("/rules")
    async def replace_rules(rules: list[Rule]) -> list[RuleState]:
        """Replace the whole script by this list."""
        exchange.rules.clear()
        return [_rule_state(exchange.rules.add(rule)) for rule in rules]

    @app.get("/rules")
    async def list_rules() -> list[RuleState]:
        return [_rule_state(active) for active in exchange.rules.active]

    @app.delete("/rules", status_code=204)
    async def clear_rules() -> None:
        exchange.rules.clear()

    @app.post("/orders/rescript")
    async def rescript(change: Rescript) -> Rescripted:
        """Change what happens to the open orders of a client order id from now on."""
        changed = exchange.rescript(change.client_order_id, change.behaviour)
        if not changed:
            raise HTTPException(404, f"no open order has the client order id {change.client_order_id}")
        return Rescripted(orders=changed)

    @app.post("/orders/name-executions")
    async def name_executions(order: NamedOrder) -> Rescripted:
        """Let the activities have the fills that the script left unnamed; the stream stays without them."""
        return Rescripted(orders=exchange.name_executions(order.client_order_id))

    @app.post("/executions/bust", status_code=201)
    async def bust(change: Bust) -> ExecutionSeen:
        """Take an execution back, on the stream and everywhere else; the answer is the bust."""
        return _execution_seen(exchange, exchange.bust(change.execution_id, revive=change.revive))

    @app.post("/executions/correct", status_code=201)
    async def correct(change: Correction) -> ExecutionSeen:
        """Give an execution another quantity and price; the answer is the correction."""
        made = exchange.correct(change.execution_id, qty=change.qty, price=change.price, revive=change.revive)
        return _execution_seen(exchange, made)

    @app.post("/executions/charge", status_code=201)
    async def charge(charge: ExecutionCharge) -> dict[str, str | None]:
        """A fee or commission that is stated after its trade: an activity that names the execution and its order."""
        one = any_execution(exchange.book.executions, charge.execution_id)
        return exchange.book_non_trade(charge_of(one, charge.activity_type, charge.amount))

    @app.post("/outages", status_code=201)
    async def add_outage(outage: Outage) -> list[OutageState]:
        """Break the REST interface, or a part of it, for some requests or some time."""
        outages.add(outage)
        return _outage_states(outages)

    @app.get("/outages")
    async def list_outages() -> list[OutageState]:
        return _outage_states(outages)

    @app.delete("/outages", status_code=204)
    async def clear_outages() -> None:
        """Requests that already hang stay unanswered, as packets that were lost."""
        outages.active.clear()


def _call_routes(app: FastAPI, outages: Outages) -> None:
    @app.put("/call-limit", status_code=204)
    async def limit_calls(limit: CallLimit) -> None:
        """Refuse calls to any endpoint, with 429, beyond so many a minute."""
        outages.calls.set_limit(limit)

    @app.delete("/call-limit", status_code=204)
    async def unlimit_calls() -> None:
        outages.calls.set_limit(None)

    @app.get("/calls")
    async def calls_seen() -> CallsSeen:
        """How many calls came, by endpoint, and how many of them were refused by the limit."""
        return outages.calls.seen()


def _stream_routes(app: FastAPI, exchange: Exchange) -> None:
    @app.post("/stream/drop")
    async def drop_stream(drop: StreamDrop) -> StreamState:
        """Cut every trade-update connection; the answer says how many listened."""
        listeners = exchange.stream.listeners
        exchange.stream.drop(drop.refuse_for_s)
        return StreamState(listeners=listeners)

    @app.post("/stream/silence", status_code=204)
    async def silence_stream(silence: StreamSilence) -> None:
        exchange.stream.silence(silence.for_s)

    @app.post("/stream/heal", status_code=204)
    async def heal_stream() -> None:
        """End a drop or a silence now; what reordering still withholds is sent."""
        exchange.stream.heal()

    @app.get("/stream")
    async def stream_state() -> StreamState:
        return StreamState(listeners=exchange.stream.listeners)

    @app.patch("/capabilities")
    async def set_capabilities(change: Capabilities) -> Capabilities:
        conduct = exchange.conduct.changed(**dict(change), at_us=exchange.ticker.next_us())
        exchange.set_conduct(conduct)
        return Capabilities(
            deduplication=conduct.deduplication,
            activity_ids=conduct.activity_ids[-1][1],
            reversals=conduct.reversals,
            oversell=conduct.oversell,
        )


def _market_routes(app: FastAPI, exchange: Exchange) -> None:
    @app.put("/quotes")
    async def pin_quotes(pins: dict[str, Pin]) -> dict[str, Pin]:
        """Pin these symbols (others that are pinned stay so)."""
        exchange.set_pins({**exchange.quotes.pins, **pins})
        return exchange.quotes.pins

    @app.get("/quotes")
    async def pinned_quotes() -> dict[str, Pin]:
        return exchange.quotes.pins

    @app.delete("/quotes", status_code=204)
    async def unpin_quotes() -> None:
        """Every symbol walks again."""
        exchange.set_pins({})

    @app.put("/clock")
    async def set_clock(hours: MarketHours) -> MarketHours:
        """Close the market (until next_open, or until it is opened here); crypto trades on."""
        exchange.set_hours(hours)
        return hours

    @app.post("/non-trades", status_code=201)
    async def book_non_trade(done: NonTrade) -> dict[str, str | None]:
        """Expire, assign, exercise, split, … a holding: it changes without an order, and the activities list it."""
        return exchange.book_non_trade(done)

    @app.get("/positions")
    async def positions() -> dict[str, str]:
        """Signed quantities by symbol."""
        return {symbol: str(position.qty) for symbol, position in exchange.book.positions.items()}

    @app.put("/positions")
    async def set_positions(positions: list[PositionSpec]) -> dict[str, str]:
        """Replace every position; rows of one symbol are netted."""
        exchange.set_positions([Seed("", p.symbol, CLASS_OF_TYPE[p.asset_type], p.quantity) for p in positions])
        return {symbol: str(position.qty) for symbol, position in exchange.book.positions.items()}

    @app.put("/positions.csv")
    async def import_positions(request: Request) -> dict[str, str]:
        """Replace every position by this positions file (the body is the file)."""
        try:
            seeds = read_positions_csv((await request.body()).decode(), exchange.account_filter)
        except (BadPositionsCsv, UnicodeDecodeError) as error:
            raise HTTPException(422, str(error)) from error
        exchange.set_positions(seeds)
        return {symbol: str(position.qty) for symbol, position in exchange.book.positions.items()}


def _inspection_routes(app: FastAPI, exchange: Exchange) -> None:
    @app.get("/orders")
    async def orders(client_order_id: str | None = None, prefix: str | None = None) -> list[OrderSeen]:
        """For each client order id: what was POSTed, byte for byte, what was accepted, and what was executed."""
        return _orders_seen(exchange, exchange.receipts(client_order_id, prefix))


def _rule_state(active: ActiveRule) -> RuleState:
    return RuleState(id=active.id, rule=active.rule, remaining=active.remaining)


def _outage_states(outages: Outages) -> list[OutageState]:
    return [OutageState(outage=active.outage, remaining=active.remaining) for active in outages.active]


def _orders_seen(exchange: Exchange, receipts: list[Receipt]) -> list[OrderSeen]:
    by_client_id: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        by_client_id[receipt.client_order_id or ""].append(receipt)
    executions: dict[str, list[Execution]] = defaultdict(list)
    for execution in exchange.book.executions:
        executions[execution.order_id].append(execution)
    return [_order_seen(exchange, name, found, executions) for name, found in by_client_id.items()]


def _order_seen(
    exchange: Exchange, client_order_id: str, receipts: list[Receipt], executions: Mapping[str, list[Execution]]
) -> OrderSeen:
    orders = exchange.book.by_client_id(client_order_id)
    return OrderSeen(
        client_order_id=client_order_id,
        posts_received=len(receipts),
        accepted=sum(receipt.outcome == "accepted" for receipt in receipts),
        bodies=tuple(receipt.body for receipt in receipts),
        posts=tuple(
            PostSeen(at=rfc3339(r.at_us), body=r.body, outcome=r.outcome, order_id=r.order_id) for r in receipts
        ),
        orders=tuple(
            BrokerOrderSeen(
                order_id=order.id,
                symbol=order.ticket.symbol,
                side=order.ticket.side,
                qty=order.ticket.qty,
                status=order.status,
                filled_qty=order.filled_qty,
                broker_seq=order.updated_us,
                executions=tuple(_execution_seen(exchange, one) for one in executions.get(order.id, ())),
            )
            for order in orders
        ),
    )


def _execution_seen(exchange: Exchange, execution: Execution) -> ExecutionSeen:
    return ExecutionSeen(
        execution_id=execution.id,
        activity_id=exchange.conduct.activity_id(execution),
        qty=execution.qty,
        price=execution.price,
        cum_qty=execution.cum_qty,
        at=rfc3339(execution.at_us),
        kind=execution.kind,
        ref_id=execution.ref_id,
    )
