"""The Broker protocol over Alpaca's Trading API v2 and its market data."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from urllib.parse import quote as url_quote

import structlog

from closeflow.broker.alpaca import activities, classify, market_data, parse
from closeflow.broker.alpaca.reading import as_object, items_of, text_of, usable
from closeflow.broker.alpaca.wire import Reply, Wire, order_body, read_json
from closeflow.broker.budget import CallBudget, Urgency
from closeflow.broker.protocol import (
    BrokerUnavailable,
    Capabilities,
    ExecutionPage,
    HandingOver,
    IdDeduplication,
    MayBegin,
    NonTradePage,
    OpenOrders,
    Positions,
)
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.market_data import Instrument, LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType, BrokerUpdate, UpdateSource
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAnswer,
    ForeignOrder,
    LookUpAnswer,
    NotFound,
    SubmitAnswer,
    Unanswered,
)
from closeflow.domain.sending.ticket import Ticket
from closeflow.tls import ClientTls

log = structlog.get_logger()

BROKER_NAME: Final = "alpaca"
RATE_PER_S: Final = 100.0

ALPACA: Final = Capabilities(
    # Documented only for open orders; a desk that has proven more says so by a setting.
    client_id_deduplication=IdDeduplication.WHILE_OPEN,
    visibility_lag_s=5.0,
    refuses_to_exceed=False,  # Documented for no asset type; a desk that has proven it says so by a setting.
)

_INSTRUMENT_PATHS: Final = {
    AssetType.STOCK: "/v2/assets",
    AssetType.OPTION: "/v2/options/contracts",
    AssetType.CRYPTO: "/v2/assets",
}
_CLOCK_PATH: Final = "/v2/clock"
_ORDERS_PER_PAGE: Final = 500
_NAMES_KEPT: Final = 20_000
_RESOLVES_AT_ONCE: Final = 8
_LISTED_FROM: Final = 3
_CLOCK_KEPT_S: Final = 60.0


def utc_now() -> datetime:
    """This host's time, for `received_at` alone; no decision is made by it."""
    return datetime.now(UTC)


class AlpacaBroker:
    """One Alpaca account. Safe for concurrent calls in one event loop; close it with `aclose`."""

    def __init__(
        self,
        *,
        base_url: str,
        market_data_url: str,
        key_id: str,
        secret_key: str,
        account_id: str,
        name: str = BROKER_NAME,
        capabilities: Capabilities = ALPACA,
        deadline_s: float = 5.0,
        connections: int = 64,
        now: Callable[[], datetime] = utc_now,
        budget: CallBudget | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        """`account_id` is our name of the account whose credentials these are; `deadline_s` bounds a whole call, and
        how long one that is no send waits for its turn in the `budget`. `tls` is of both servers."""
        self._budget = budget = budget or CallBudget(RATE_PER_S)
        self._clock: tuple[float, MarketClock] | None = None
        headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key, "User-Agent": "closeflow"}
        self._of = parse.Account(broker=name, account_id=account_id)
        self._capabilities = capabilities
        # Market data is another server with a limit of its own; its refusals hold no order back.
        self._trading, self._data = (
            Wire(
                url,
                headers=headers,
                deadline_s=deadline_s,
                connections=connections,
                now=now,
                budget=budget,
                host=host,
                tls=tls,
            )
            for url, host in ((base_url, None), (market_data_url, CallBudget(RATE_PER_S)))
        )
        self._names: OrderedDict[str, parse.OrderName | ForeignOrder] = OrderedDict()
        self._resolving = asyncio.Semaphore(_RESOLVES_AT_ONCE)

    @property
    def name(self) -> str:
        """`alpaca`, unless another was given."""
        return self._of.broker

    @property
    def account_id(self) -> str:
        """As given: Alpaca's own number of the account is not asked for."""
        return self._of.account_id

    @property
    def capabilities(self) -> Capabilities:
        """As given: `ALPACA` is what is documented, a desk may have proven more."""
        return self._capabilities

    async def submit(
        self,
        ticket: Ticket,
        *,
        begin_within_s: float | None = None,
        may_begin: MayBegin | None = None,
        handing_over: HandingOver | None = None,
    ) -> SubmitAnswer:
        """`POST /v2/orders`; an option's order says that it closes, any other where `refuses_to_exceed` is proven."""
        outcome = await self._trading.call(
            "POST",
            "/v2/orders",
            urgency=Urgency.SEND,
            content=order_body(ticket, says_it_closes=self._capabilities.refuses_to_exceed),
            begin_within_s=begin_within_s,
            may_begin=may_begin,
            handing_over=handing_over,
        )
        answer = classify.submit_answer(outcome, ticket=ticket, of=self._of)
        if isinstance(answer, Acknowledged):
            self._remember(answer.update)
        return answer

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        """`GET /v2/orders:by_client_order_id`. Only Alpaca's own words with 404 are a not-found."""
        params = {"client_order_id": client_order_id}
        path = "/v2/orders:by_client_order_id"
        outcome = await self._trading.call("GET", path, urgency=Urgency.LOOK_UP, params=params)
        return self._looked_up(classify.look_up_answer(outcome, of=self._of, client_order_id=client_order_id))

    async def cancel(self, ticket: Ticket, *, broker_order_id: str) -> CancelAnswer:
        """`DELETE /v2/orders/{id}`: by the broker's id alone. 204 says that it was taken, not that it is done."""
        path = f"/v2/orders/{url_quote(broker_order_id, safe='')}"
        return classify.cancel_answer(await self._trading.call("DELETE", path, urgency=Urgency.SEND))

    async def open_orders(self) -> OpenOrders:
        """`GET /v2/orders?status=open`, read to its end; pages go by the time of submission."""
        found: dict[str, BrokerUpdate] = {}
        unreadable: dict[str, None] = {}
        seen: set[str] = set()
        params = {"status": "open", "limit": str(_ORDERS_PER_PAGE), "direction": "asc", "nested": "false"}
        while True:
            reply = await self._read(self._trading, "/v2/orders", params)
            page = [item if isinstance(item, dict) else {} for item in items_of(reply)]
            before = len(seen)
            for order in page:
                seen.add(str(order.get("id")))
                try:
                    update = parse.order_update(
                        order, of=self._of, source=UpdateSource.QUERY, received_at=reply.received_at
                    )
                except parse.Malformed as error:
                    unreadable |= dict.fromkeys(_unreadable(order, error))
                    continue
                found[update.broker_order_id or update.client_order_id] = update
                self._remember(update)
            # `after` excludes orders submitted at that instant, so a page boundary inside one would lose the others.
            if len(page) < _ORDERS_PER_PAGE or len(seen) == before:
                return OpenOrders(tuple(found.values()), tuple(unreadable))
            last = next((order for order in reversed(page) if order.get("submitted_at")), page[-1])
            params["after"] = text_of(last, "submitted_at")

    async def newest_orders(self) -> tuple[BrokerUpdate, ...]:
        """`GET /v2/orders?status=all`: at most 500, the last submitted first."""
        params = {"status": "all", "limit": str(_ORDERS_PER_PAGE), "direction": "desc", "nested": "false"}
        reply = await self._read(self._trading, "/v2/orders", params)
        found: list[BrokerUpdate] = []
        for item in items_of(reply):
            try:
                order = parse.as_object(item, "order")
                update = parse.order_update(
                    order, of=self._of, source=UpdateSource.QUERY, received_at=reply.received_at
                )
            except parse.Malformed as error:
                log.warning("listed_order_passed_over", reason=str(error))
                continue
            self._remember(update)
            found.append(update)
        return tuple(found)

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        """FILL activities. They have only the broker's order id, so up to 100 orders are asked for to name them."""
        reply = await self._read(self._trading, "/v2/account/activities/FILL", activities.page_after(after, page))
        listed = [item if isinstance(item, dict) else {} for item in items_of(reply)]
        names = await self._resolve({str(activity["order_id"]) for activity in listed if activity.get("order_id")})
        return activities.execution_page(listed, names, page=page, of=self._of, received_at=reply.received_at)

    async def non_trades(self, *, after: datetime, page: str | None = None) -> NonTradePage:
        """Activities of the category `non_trade_activity`; they are dated by day, and may be booked days later."""
        params = {"category": "non_trade_activity", **activities.page_after(after, page)}
        listed = items_of(await self._read(self._trading, "/v2/account/activities", params))
        return NonTradePage(
            activities=tuple(map(activities.non_trade, listed)), next_page=activities.next_page(listed, page)
        )

    async def position(self, symbol: str) -> Decimal:
        """`GET /v2/positions/{symbol}`; 0 only for Alpaca's own word that there is none."""
        # Alpaca's position paths take a crypto pair without its slash.
        path = f"/v2/positions/{url_quote(symbol.replace('/', ''), safe='')}"
        outcome = await self._trading.call("GET", path, urgency=Urgency.LIST)
        if isinstance(outcome, Reply) and classify.says_position_not_found(outcome):
            return Decimal(0)
        reply = usable(outcome, path)
        try:
            return parse.position_quantity(as_object(read_json(reply.body), "position"))
        except ValueError as error:
            raise BrokerUnavailable(f"position of {symbol}: {error}") from error

    async def positions(self) -> Positions:
        """`GET /v2/positions`, in one call; pairs get their slash back."""
        reply = await self._read(self._trading, "/v2/positions", {})
        held: dict[str, Decimal] = {}
        unreadable: set[str] = set()
        for item in items_of(reply):
            try:
                position = parse.as_object(item, "position")
                held[parse.symbol(position)] = parse.position_quantity(position)
            except parse.Malformed as error:
                log.error("position_not_readable", reason=str(error))
                unreadable.add(parse.symbol_in(item))
        return Positions(held, frozenset(unreadable))

    async def quotes(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """One call to the market data server, refused whole for one bad symbol (`FailureCause.QUESTION`)."""
        reply, listed = await self._newest("quotes", asset_type, symbols)
        at = reply.dated_at or reply.received_at
        return market_data.readable_ones(
            listed, symbols, lambda symbol, one: market_data.quote(symbol, one, asked_at=at)
        )

    async def last_trades(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, LastTrade]:
        """As `quotes`, from the same server."""
        _, listed = await self._newest("trades", asset_type, symbols)
        return market_data.readable_ones(listed, symbols, lambda _, one: market_data.last_trade(one))

    async def instrument(self, asset_type: AssetType, symbol: str) -> Instrument:
        """`GET /v2/assets` or `/v2/options/contracts`. What is not said to be inactive is ACTIVE."""
        path = f"{_INSTRUMENT_PATHS[asset_type]}/{url_quote(symbol, safe='')}"
        outcome = await self._trading.call("GET", path, urgency=Urgency.MARKET)
        if isinstance(outcome, Reply) and classify.says_instrument_not_found(outcome):
            return Instrument.UNKNOWN
        try:
            status = parse.text(as_object(read_json(usable(outcome, path).body), "instrument"), "status")
        except ValueError as error:
            raise BrokerUnavailable(f"{path}: {error}") from error
        return Instrument.INACTIVE if status == "inactive" else Instrument.ACTIVE

    async def submitted_at(self, client_order_id: str) -> datetime | None:
        """The earlier of `created_at` and `submitted_at`, so that nothing of the order is before it."""
        params = {"client_order_id": client_order_id}
        reply = await self._read(self._trading, "/v2/orders:by_client_order_id", params)
        try:
            order = as_object(read_json(reply.body), "order")
            times = [parse.optional_time(order, name) for name in ("created_at", "submitted_at")]
        except ValueError as error:
            raise BrokerUnavailable(f"order {client_order_id}: {error}") from error
        return min((one for one in times if one is not None), default=None)

    async def clock(self) -> MarketClock:
        """`GET /v2/clock`; while calls are short, the last answer for up to a minute."""
        if self._clock is not None and self._budget.is_tight and time.monotonic() - self._clock[0] < _CLOCK_KEPT_S:
            return self._clock[1]  # Calls are short, and the hours do not change within a minute.
        reply = await self._read(self._trading, _CLOCK_PATH, {})
        try:
            clock = market_data.market_clock(as_object(read_json(reply.body), "clock"))
        except ValueError as error:
            raise BrokerUnavailable(f"the market clock cannot be read: {error}") from error
        self._clock = (time.monotonic(), clock)
        return clock

    async def aclose(self) -> None:
        """Closes the connections to both servers; a call that is under way fails."""
        await self._trading.aclose()
        await self._data.aclose()

    async def _newest(
        self, what: str, asset_type: AssetType, symbols: Sequence[str]
    ) -> tuple[Reply, Mapping[str, object]]:
        path = market_data.PATHS[asset_type].format(what)
        reply = await self._read(self._data, path, {"symbols": ",".join(symbols)})
        try:
            return reply, parse.as_object(parse.as_object(read_json(reply.body), "the answer").get(what), what)
        except ValueError as error:
            raise BrokerUnavailable(f"{path}: {error}") from error

    async def _read(self, wire: Wire, path: str, params: Mapping[str, str]) -> Reply:
        urgency = Urgency.MARKET if wire is self._data or path == _CLOCK_PATH else Urgency.LIST
        return usable(await wire.call("GET", path, urgency=urgency, params=params), path)

    def _looked_up(self, answer: LookUpAnswer) -> LookUpAnswer:
        if isinstance(answer, Acknowledged):
            self._remember(answer.update)
        return answer

    def _remember(self, update: BrokerUpdate) -> None:
        if update.broker_order_id is not None:
            name = parse.OrderName(client_order_id=update.client_order_id, symbol=update.symbol)
            self._keep_name(update.broker_order_id, name)

    def _keep_name(self, broker_order_id: str, name: parse.OrderName | ForeignOrder) -> None:
        self._names[broker_order_id] = name
        self._names.move_to_end(broker_order_id)
        if len(self._names) > _NAMES_KEPT:
            self._names.popitem(last=False)

    async def _resolve(self, broker_order_ids: set[str]) -> Mapping[str, parse.OrderName | Unanswered]:
        """Name each order that the broker knows, or say why there is no name; a fill is never passed on nameless.
        Raises `BrokerUnavailable` when the broker takes no questions."""
        if len(broker_order_ids - self._names.keys()) >= _LISTED_FROM:
            await self.newest_orders()
        named: dict[str, parse.OrderName | Unanswered] = {
            found: self._names[found] for found in broker_order_ids if found in self._names
        }
        missing = sorted(broker_order_ids - named.keys())
        found = zip(missing, await asyncio.gather(*map(self._name_of, missing)), strict=True)
        return named | {order_id: name for order_id, name in found if name is not None}

    async def _name_of(self, broker_order_id: str) -> parse.OrderName | Unanswered | None:
        async with self._resolving:
            path = f"/v2/orders/{url_quote(broker_order_id, safe='')}"
            outcome = await self._trading.call("GET", path, urgency=Urgency.LOOK_UP)
            answer = self._looked_up(classify.look_up_answer(outcome, of=self._of, client_order_id=None))
        if isinstance(answer, Acknowledged):
            return self._names.get(broker_order_id) or Unanswered(f"asked for order {broker_order_id}, got another")
        if isinstance(answer, ForeignOrder):
            self._keep_name(broker_order_id, answer)
            return answer
        if isinstance(answer, NotFound):
            return None
        reason = f"order {broker_order_id} of an execution cannot be named: {answer.reason}"
        if isinstance(answer, Unanswered):
            return Unanswered(reason)
        raise BrokerUnavailable(reason, retry_after_s=getattr(answer, "retry_after_s", None))


def _unreadable(order: parse.Json, error: parse.Malformed) -> list[str]:
    """The client order id of an order that cannot be read, if it is ours: neither may somebody else's keep us from
    what is ours, nor one of ours from the others."""
    client_order_id = order.get("client_order_id")
    if not isinstance(client_order_id, str) or parse_client_order_id(client_order_id) is None:
        log.warning("foreign_order_passed_over", client_order_id=client_order_id, reason=str(error))
        return []
    log.error("open_order_not_readable", client_order_id=client_order_id, reason=str(error))
    return [client_order_id]
