"""Order lists and FILL activities: the query parameters, and what they select.

Alpaca documents FILL activities for `fill` and `partial_fill` only. That a bust or a correction is one too, with the
types that its activity events have (`trade_bust`, `trade_correct`) and with `previous_id`, the activity that it
replaces, is an assumption; without it (the capability `reversals`) REST shows them in orders and positions alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from .book import Book
from .conduct import Conduct
from .errors import Refusal, invalid_field
from .numbers import parse_time, plain, rfc3339
from .orders import ZERO, Execution, Order


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """`after` and `until` are about submission, as at Alpaca."""

    status: str
    limit: int
    after_us: int | None
    until_us: int | None
    newest_first: bool
    symbols: frozenset[str]
    side: str | None


@dataclass(frozen=True, slots=True)
class ActivityQuery:
    """What of the activities is asked for; times are in microseconds since 1970."""

    after_us: int | None
    until_us: int | None
    page_token: str | None
    page_size: int
    newest_first: bool


def read_order_query(params: Mapping[str, str]) -> OrderQuery | Refusal:
    """The parameters of `GET /v2/orders`, with Alpaca's defaults and limits."""
    status = params.get("status", "open")
    if status not in ("open", "closed", "all"):
        return invalid_field(f"invalid status: {status}")
    frame = _read_frame(params, default_limit=50, limit_name="limit", max_limit=500)
    if isinstance(frame, Refusal):
        return frame
    after_us, until_us, limit, newest_first = frame
    symbols = frozenset(filter(None, params.get("symbols", "").split(",")))
    return OrderQuery(status, limit, after_us, until_us, newest_first, symbols, params.get("side"))


def read_activity_query(params: Mapping[str, str]) -> ActivityQuery | Refusal:
    """The parameters of `GET /v2/account/activities`, with Alpaca's defaults and limits."""
    frame = _read_frame(params, default_limit=100, limit_name="page_size", max_limit=100)
    if isinstance(frame, Refusal):
        return frame
    after_us, until_us, page_size, newest_first = frame
    return ActivityQuery(after_us, until_us, params.get("page_token") or None, page_size, newest_first)


def _read_frame(
    params: Mapping[str, str], *, default_limit: int, limit_name: str, max_limit: int
) -> tuple[int | None, int | None, int, bool] | Refusal:
    times: list[int | None] = []
    for name in ("after", "until"):
        text = params.get(name)
        parsed = parse_time(text) if text else None
        if text and parsed is None:
            return invalid_field(f"invalid {name}: {text}; use an RFC 3339 time")
        times.append(parsed)
    limit = params.get(limit_name, str(default_limit))
    if not limit.isdecimal() or not 1 <= int(limit) <= max_limit:
        return invalid_field(f"invalid {limit_name}: {limit}; use 1 to {max_limit}")
    direction = params.get("direction", "desc")
    if direction not in ("asc", "desc"):
        return invalid_field(f"invalid direction: {direction}")
    return times[0], times[1], int(limit), direction == "desc"


def select_orders(book: Book, query: OrderQuery, is_visible: Callable[[Order], bool]) -> list[Order]:
    """The orders that the query selects, in its direction, at most its limit."""
    matching = (
        order
        for order in book.submitted_between(query.after_us, query.until_us, newest_first=query.newest_first)
        if (query.status == "all" or order.is_open == (query.status == "open"))
        and (not query.symbols or order.ticket.symbol in query.symbols)
        and (query.side is None or order.ticket.side == query.side)
        and is_visible(order)
    )
    return list(islice(matching, query.limit))


def select_activities(
    book: Book,
    query: ActivityQuery,
    conduct: Conduct,
    account_id: str,
    is_listed: Callable[[Execution], bool],
) -> list[dict[str, object]] | Refusal:
    """One page; the next begins after the last id of this one, given as page_token."""
    low, high = book.executions_after(query.after_us, query.until_us)
    if query.page_token is not None:
        last = _index_of(book, query.page_token, conduct)
        if last is None:
            return invalid_field(f"invalid page_token: {query.page_token}")
        low, high = (low, min(high, last)) if query.newest_first else (max(low, last + 1), high)
    indices = range(high - 1, low - 1, -1) if query.newest_first else range(low, high)
    listed = (book.executions[index] for index in indices if is_listed(book.executions[index]))
    return [_activity_json(book, one, conduct, account_id) for one in islice(listed, query.page_size)]


def _index_of(book: Book, activity_id: str, conduct: Conduct) -> int | None:
    """By the time in front of the id, which narrows the search to one millisecond."""
    stamp, _, _ = activity_id.partition("::")
    try:
        at = datetime.strptime(f"{stamp}000", "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    from_us = parse_time(at.isoformat()) or 0
    low, high = book.executions_after(from_us - 1, from_us + 999)
    return next((i for i in range(low, high) if conduct.activity_id(book.executions[i]) == activity_id), None)


def _activity_json(book: Book, execution: Execution, conduct: Conduct, account_id: str) -> dict[str, object]:
    body: dict[str, object] = {
        "id": conduct.activity_id(execution),
        "account_id": account_id,
        "activity_type": "FILL",
        "transaction_time": rfc3339(execution.at_us),
        "type": _activity_type(execution),
        "price": plain(execution.price),
        "qty": plain(execution.qty),
        "side": execution.side,
        "symbol": execution.symbol,
        "leaves_qty": plain(execution.leaves_qty),
        "order_id": execution.order_id,
        "cum_qty": plain(execution.cum_qty),
        "order_status": execution.order_status,
    }
    if execution.ref_id is not None:
        body["previous_id"] = conduct.activity_id(next(one for one in book.executions if one.id == execution.ref_id))
    return body | book.orders[execution.order_id].behaviour.shown.activity


def _activity_type(execution: Execution) -> str:
    if execution.kind != "fill":
        return f"trade_{execution.kind}"
    return "fill" if execution.leaves_qty == ZERO else "partial_fill"
