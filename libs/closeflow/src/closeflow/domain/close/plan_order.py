"""Plan the order of a close request's current attempt (moves C2, C3, C4 and O1 of lifecycle.md).

The plan is made from state and not from the message (rule R9): the message only says that there may be something to
plan, and what its writer believed the request to be. The quantity is what is owed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, assert_never
from uuid import UUID

from closeflow.domain.account_limits import BREACHES, LIMITS_MISSING, AccountLimits, breach
from closeflow.domain.close import deferral, instruments, pricing, quotes, ticks
from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.passing_refusals import costs_a_retry, waits_since
from closeflow.domain.close.ticks import Grid
from closeflow.domain.frozen import replace
from closeflow.domain.ids import client_order_id
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.market_data import Instrument, MarketClock, Quote
from closeflow.domain.model import (
    ZERO,
    AssetType,
    Book,
    CloseRequest,
    Incident,
    Order,
    OrderStatus,
    OrderType,
    RequestStatus,
    Side,
)
from closeflow.domain.position import exposure
from closeflow.domain.reasons import DEADLINE_PASSED, USER_CANCEL
from closeflow.domain.text import decimal_text, time_text
from closeflow.domain.trading_controls import Controls

NOTHING_OWED: Final = "nothing_owed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a `submit-order` record says about the request it names."""

    close_request_id: UUID
    attempt: int
    position_id: int
    account_id: str
    symbol: str
    side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What was fetched before the transaction. An absent clock or quote is one that could not be had."""

    clock: MarketClock | None = None
    quotes: Mapping[str, Quote] = field(default_factory=dict)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    """Of symbols that nobody quotes: whether the broker knows them."""
    waited_s: float = 0.0
    """How long ago the quotes were as old as they say, by a monotonic clock."""
    sends_resume_at: datetime | None = None
    """Set while the circuit breaker of the account is open: when it lets the next send through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRules:
    """Seconds, and what is set of quotes and of increments."""

    quote: quotes.QuoteRules = field(default_factory=quotes.QuoteRules)
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """Price increments by symbol or option root, where they are not those of the asset type."""
    quote_max_age_s: float = 5.0
    standing_quote_max_age_s: Mapping[AssetType, float] = field(default_factory=lambda: quotes.STANDING_QUOTE_MAX_AGE_S)
    """Of a quote that was asked for again and is the newest there is, while its market is open."""
    retry_s: float = 1.0
    """When a deferral with no better hint is due again the first time."""
    halted_s: float = 5.0
    """When a deferral by the kill switch is: a halt may last for hours, and every one of them is asked about again."""


@dataclass(frozen=True, slots=True)
class Submit:
    """C2, O1: the intent; it goes out as it stands here, byte for byte, however often it has to be sent."""

    order: Order


@dataclass(frozen=True, slots=True)
class Deny:
    """C4: never. `code` becomes the request's reason."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AlreadyPlanned:
    """An older attempt, a finished request, or an attempt that has its order: nothing to do, nothing wrong."""


@dataclass(frozen=True, slots=True)
class Disagrees:
    """The message and the request cannot both be right: nothing is sent, a person must look."""

    reason: str


Plan = Submit | Defer | Deny | AlreadyPlanned | Disagrees


def plan(book: Book, asked: Asked, *, controls: Controls, market: Market, now: datetime, rules: PlanRules) -> Plan:
    """Decide what becomes of the attempt. `book` holds the request; `controls` are those of its account, read in the
    same transaction; `now` is the database's time."""
    request = book.requests[asked.close_request_id]
    decided = _plan(book, request, asked, controls=controls, market=market, now=now, rules=rules)
    if not isinstance(decided, Defer) or decided.reason in deferral.WAITS_FOR_ITS_TIME:
        return decided
    again_at = deferral.ask_again_at(request, decided.reason, timedelta(seconds=rules.retry_s), now=now)
    return replace(decided, until=max(decided.until, again_at))


def _plan(
    book: Book,
    request: CloseRequest,
    asked: Asked,
    *,
    controls: Controls,
    market: Market,
    now: datetime,
    rules: PlanRules,
) -> Plan:
    disagreement = _disagreement(book, request, asked)
    if disagreement is not None:
        return disagreement
    if asked.attempt < request.attempt or request.status is not RequestStatus.PENDING:
        return AlreadyPlanned()
    if client_order_id(request.id, request.attempt) in book.orders:
        return AlreadyPlanned()
    limits = controls.limits
    over = _over(request, now) or deferral.held_by_controls(controls, now=now, halted_s=rules.halted_s)
    if over is not None or limits is None:
        return over or Defer(now + timedelta(seconds=rules.retry_s), LIMITS_MISSING)
    return (
        deferral.waits_for_orders(book, request, now + timedelta(seconds=rules.retry_s))
        or _gone(request, market)
        or deferral.waits_for_market(
            request.asset_type, market.clock, market.sends_resume_at, now + timedelta(seconds=rules.retry_s), now=now
        )
        or _intent(book, request, limits, market, now, rules)
    )


def _disagreement(book: Book, request: CloseRequest, asked: Asked) -> Disagrees | None:
    for name, theirs, ours in (
        ("position", asked.position_id, request.position_id),
        ("account", asked.account_id, request.account_id),
        ("symbol", asked.symbol, request.symbol),
        ("side", asked.side, request.side),
    ):
        if theirs != ours:
            return Disagrees(f"{name} is {theirs} in the message, {ours} in the request")
    if asked.attempt > request.attempt:
        return Disagrees(f"attempt {asked.attempt} is above the request's, {request.attempt}")
    if request.status is RequestStatus.PENDING and book.position.active_close_request_id != request.id:
        return Disagrees("the request is pending and is not its position's active one")
    return None


def _over(request: CloseRequest, now: datetime) -> Deny | None:
    if request.frozen_reason is not None:
        return None  # Its end would let a new close go round what froze it.
    if request.cancel_requested_at is not None:
        return Deny(USER_CANCEL, "withdrawn before it was sent")
    if request.deadline_at is not None and request.deadline_at <= now:
        return Deny(DEADLINE_PASSED, f"the deadline was {request.deadline_at.isoformat()}")
    return None


def _gone(request: CloseRequest, market: Market) -> Deny | None:
    gone = instruments.gone(request.asset_type, request.symbol, market.clock, market.instruments.get(request.symbol))
    return None if gone is None else Deny(gone.code, gone.detail)


def _intent(
    book: Book, request: CloseRequest, limits: AccountLimits, market: Market, now: datetime, rules: PlanRules
) -> Plan:
    soon = now + timedelta(seconds=rules.retry_s)
    quantity = exposure.owed(book, request)
    if quantity == ZERO:
        return Defer(soon, NOTHING_OWED)
    if (request.side is Side.SELL) != (book.position.quantity > ZERO):
        return Deny("side_changed", f"a {request.side} does not reduce a position of {book.position.quantity}")
    seen = market.quotes.get(request.symbol)
    oldest_s = rules.standing_quote_max_age_s[request.asset_type]
    quote = quotes.fresh(seen, market.waited_s, max_age_s=rules.quote_max_age_s, standing_max_age_s=oldest_s)
    if quote is None and (request.order_type is OrderType.MARKET or request.limit_price is not None):
        quote = quotes.of_any_age(seen)
    price, quote = _price(book, request, quote, rules)
    match price:
        case quotes.Unpriced(reason="limit_below_one_tick"):
            return Deny("bad_price", "the limit price rounds to zero on the tick grid")
        case quotes.Unpriced(reason=pricing.TOUCH_BEYOND_SLIPPAGE):
            return Deny(pricing.TOUCH_BEYOND_SLIPPAGE, _beyond(request, quote))
        case quotes.Unpriced(reason=IncidentKind.INCREMENT_DOUBTED):
            return Deny(IncidentKind.INCREMENT_DOUBTED, _doubted(book.orders_of(request.id)))
        case quotes.Unpriced(reason=reason):
            return Defer(soon, reason)
        case pricing.Priced():
            pass
        case _:
            assert_never(price)
    over = breach(limits, quantity=quantity, price=price.worth, multiplier=book.position.multiplier)
    if over is not None:
        return Deny(over.code, over.detail)
    return Submit(_order(request, quantity, price, quote, now))


def _price(
    book: Book, request: CloseRequest, quote: Quote | None, rules: PlanRules
) -> tuple[pricing.Priced | quotes.Unpriced, Quote | None]:
    """The price, and the quote that it was made from. The user's own limit needs none; everything else does, a market
    order for the account's limits."""
    asset_type, side = request.asset_type, request.side
    orders = book.orders_of(request.id)
    set_grid = ticks.grid_of(asset_type, request.symbol, rules.grids)
    grid = ticks.grid_after(set_grid, asset_type, orders)
    learned = any(ticks.refusals_for_increment(orders))
    fault = quotes.Unpriced("no_fresh_quote") if quote is None else None
    if quote is not None:
        fault = quotes.quote_fault(asset_type, side, quote, grid, rules.quote)
    if request.order_type is OrderType.LIMIT and request.limit_price is not None:
        if learned and ticks.is_doubted(grid, asset_type, request.limit_price):
            return quotes.Unpriced(IncidentKind.INCREMENT_DOUBTED), None
        used = quote if fault is None and side is Side.SELL else None
        return pricing.users_limit(side, request.limit_price, grid, market=_market(quote, fault)), used
    if quote is None or fault is not None:
        return fault or quotes.Unpriced("no_fresh_quote"), None
    if request.order_type is OrderType.MARKET:
        return pricing.at_market(side, quote), quote
    near = quotes.touch(side, quote)
    if learned and isinstance(near, Decimal) and ticks.is_doubted(grid, asset_type, near):
        return quotes.Unpriced(IncidentKind.INCREMENT_DOUBTED), quote
    sent = sum(1 for order in orders if costs_a_retry(book, request, order))
    bps, rungs = request.max_slippage_bps, request.max_retries + 1
    return pricing.ladder_price(asset_type, side, quote, bps, rung=sent + 1, rungs=rungs, grid=grid), quote


def _market(quote: Quote | None, fault: quotes.Unpriced | None) -> Decimal | None:
    """What a sell brings, as far as it is known: the bid, or where that is not believed the last trade."""
    if quote is None:
        return None
    if fault is None:
        return quote.bid
    return None if quote.last_trade is None else quote.last_trade.price


def _doubted(orders: Iterable[Order]) -> str:
    refused = next(iter(ticks.refusals_for_increment(orders)))
    words = next((one.detail for one in refused.statements if one.detail), "nothing")
    return f"no price on the grid that the broker asks for is near the market; it said: {words}"


def _beyond(request: CloseRequest, quote: Quote | None) -> str:
    bps = request.max_slippage_bps
    bound = f"{pricing.DEFAULT_SLIPPAGE_BPS[request.asset_type]} (default)" if bps is None else str(bps)
    sides = () if quote is None else (quote.bid, quote.ask)
    market = " × ".join("none" if price is None else decimal_text(price) for price in sides)
    return f"max_slippage_bps, {bound}, does not reach the other side of the market, {market}, from its mid"


def _order(
    request: CloseRequest, quantity: Decimal, price: pricing.Priced, quote: Quote | None, now: datetime
) -> Order:
    kept = None
    if quote is not None:
        sides = {"bid": quote.bid, "ask": quote.ask}
        kept = {name: decimal_text(price) for name, price in sides.items() if price is not None}
        kept["at"] = time_text(quote.at)
    return Order(
        client_order_id=client_order_id(request.id, request.attempt),
        close_request_id=request.id,
        attempt=request.attempt,
        position_id=request.position_id,
        account_id=request.account_id,
        symbol=request.symbol,
        side=request.side,
        quantity=quantity,
        order_type=OrderType.MARKET if price.limit is None else OrderType.LIMIT,
        time_in_force=pricing.time_in_force(request.asset_type, quantity, request.time_in_force),
        status=OrderStatus.PLANNED,
        created_at=now,
        limit_price=price.limit,
        quote=kept,
        next_send_at=now,
    )


def apply_plan(book: Book, request_id: UUID, decided: Plan, *, now: datetime) -> Book:
    """The book as the plan leaves it; the next item of the batch is planned on this one (rule R10)."""
    request = book.requests[request_id]
    match decided:
        case Submit(order):
            request = replace(
                request,
                status=RequestStatus.SUBMITTED,
                submitted_at=request.submitted_at or now,
                next_attempt_at=None,
                deferred_since=waits_since(book.orders_of(request_id)),
                reason=None,
            )
            book = replace(book, orders={**book.orders, order.client_order_id: order})
        case Defer(until, reason):
            request = deferral.deferred(request, until, reason, now=now)
        case Deny(code, _):
            request = replace(
                request, status=RequestStatus.FAILED, reason=code, next_attempt_at=None, deferred_since=None
            )
        case AlreadyPlanned() | Disagrees():
            return book
        case _:
            assert_never(decided)
    return replace(book, requests={**book.requests, request_id: request})


def plan_incident(request: CloseRequest, decided: Plan) -> Incident | None:
    """What a person must know of the plan."""
    match decided:
        case Disagrees(reason):
            kind, detail = IncidentKind.SUBMIT_ORDER_DISAGREES, reason
        case Deny(code, reason) if code in BREACHES:
            kind, detail = IncidentKind.ACCOUNT_LIMIT_BREACHED, reason
        case Deny(code=IncidentKind.INCREMENT_DOUBTED as kind, detail=detail):
            pass
        case _:
            return None
    return Incident(
        kind=kind,
        severity="critical",
        detail=detail,
        position_id=request.position_id,
        close_request_id=request.id,
    )
