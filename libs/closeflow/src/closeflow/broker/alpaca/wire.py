"""Bytes to and from Alpaca: request bodies that repeat exactly, and one HTTP call whose every outcome is a value."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from closeflow.broker.budget import CallBudget, Urgency
from closeflow.domain.model import AssetType, OrderType, Side
from closeflow.domain.option_symbol import read_option
from closeflow.domain.sending.ticket import Ticket

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
LONGEST_DELAY_S: Final = 900.0
"""No server's wish keeps closes waiting longer; Alpaca's limits are per minute."""
MARKET_PATIENCE_S: Final = 1.0
"""Less than anybody waits for market data: who has no turn by then is told so, and does not blame the feed."""
TOO_MANY: Final = 429
UNAVAILABLE: Final = 503
_HINTS: Final = ("retry-after", "x-ratelimit-reset", "ratelimit-reset")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_FIRST_UNIX_S: Final = 1e9
"""What is larger is no number of seconds to wait but a time: since 2001 in seconds, and in milliseconds."""
_FIRST_UNIX_MS: Final = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    body: bytes
    received_at: datetime
    retry_after_s: float | None = None
    dated_at: datetime | None = None
    """The server's own time of it (RFC 9110, 6.6.1), in whole seconds."""


@dataclass(frozen=True, slots=True)
class NotWritten:
    """The call failed before the first byte of the request was handed to the network. `retry_after_s` is set when it
    was held back because the broker refuses calls of the account, `withheld` when it waited too long for a connection
    that was there, or was not allowed to begin any more."""

    reason: str
    retry_after_s: float | None = None
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class NoReply:
    """Something may have been written, and no whole answer came back."""

    reason: str


Outcome = Reply | NotWritten | NoReply


class _Withheld(Exception):
    """The request may not begin; nothing of it was written."""


def asset_type_of(symbol: str) -> AssetType:
    """By how it is written: OSI without padding is an option, a slash a crypto pair, all else a stock."""
    if read_option(symbol) is not None:
        return AssetType.OPTION
    return AssetType.CRYPTO if "/" in symbol else AssetType.STOCK


def decimal_text(value: Decimal) -> str:
    """Without exponent or trailing zeros, so that equal numbers are equal bytes (numeric columns keep their scale)."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def order_body(ticket: Ticket, *, says_it_closes: bool = False) -> bytes:
    """The body of `POST /v2/orders`, the same for every send of one process. An option's always says that it closes."""
    body = {
        "symbol": ticket.symbol,
        "qty": decimal_text(ticket.quantity),
        "side": ticket.side.value,
        "type": ticket.order_type.value,
        "time_in_force": ticket.time_in_force.value,
        "client_order_id": ticket.client_order_id,
    }
    if ticket.order_type is OrderType.LIMIT:
        if ticket.limit_price is None:
            raise ValueError(f"limit order {ticket.client_order_id} has no limit price")
        body["limit_price"] = decimal_text(ticket.limit_price)
    if says_it_closes or asset_type_of(ticket.symbol) is AssetType.OPTION:
        body["position_intent"] = "sell_to_close" if ticket.side is Side.SELL else "buy_to_close"
    return json.dumps(body, separators=(",", ":")).encode()


def read_json(body: bytes) -> object:
    """Decode with decimals instead of binary floats. Raises ValueError for anything that is not JSON, NaN included."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ArithmeticError:
        raise ValueError("a number's exponent is out of bounds") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


@dataclass(slots=True)
class _Call:
    """How far one call has come. The client's write of a request is a task of its own, which must not outlive it."""

    begin_by: float | None
    may_begin: Callable[[], Awaitable[bool]] | None
    handing_over: Callable[[], None] | None
    connecting: bool = False
    connected: bool = False
    written: bool = False
    over: bool = False
    withheld: str | None = None
    """Why nothing may go."""

    async def before_body(self) -> None:
        """Raises _Withheld when the request must not go; the client has kept its headers to itself until now."""
        try:
            if self.begin_by is not None and time.monotonic() >= self.begin_by:
                raise _Withheld("no connection in time")
            if self.may_begin is not None and not await self.may_begin():
                raise _Withheld("it may not begin any more")
            if self.over:
                raise _Withheld("given up")
            if self.handing_over is not None:
                self.handing_over()
        except (_Withheld, OSError) as error:
            self.withheld = str(error)
            raise _Withheld(self.withheld) from error
        self.written = True


class _Body(aiohttp.Payload):
    """The bytes of a request: they go in one write with its headers, or nothing goes."""

    def __init__(self, content: bytes, call: _Call) -> None:
        super().__init__(content, content_type="application/json")
        self._size = len(content)
        self._call = call

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As text."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Between `before_body` and the write nothing else of the process runs."""
        await self._call.before_body()
        await writer.write(self._value)


def _tracing() -> aiohttp.TraceConfig:
    """Tells a call when it has a connection, its own or one that was there."""
    config = aiohttp.TraceConfig()

    def said(**states: bool) -> Any:
        async def told(_: object, context: Any, __: object) -> None:
            for name, value in states.items():
                setattr(context.trace_request_ctx, name, value)

        return told

    config.on_connection_create_start.append(said(connecting=True))
    config.on_connection_create_end.append(said(connecting=False, connected=True))
    config.on_connection_reuseconn.append(said(connected=True))
    return config


class Wire:
    """A bounded pool of HTTP/1.1 connections to one base URL. Never follows a redirect, never sends an order twice."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        deadline_s: float,
        connections: int,
        now: Callable[[], datetime],
        budget: CallBudget,
        host: CallBudget | None = None,
    ) -> None:
        """Every call is counted in the `budget`. A server with a limit of its own has its `host` budget besides: what
        it refuses says nothing of the other calls."""
        self._base_url = base_url.rstrip("/")
        self._headers = {**headers, "Accept": "application/json"}
        self._connections = connections
        self._now = now
        self._budget = budget
        self._host = host
        self._deadline_s = deadline_s
        self._made: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Made at the first call, because it belongs to the running loop."""
        if self._made is None:
            self._made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[_tracing()],
            )
        return self._made

    async def call(
        self,
        method: str,
        path: str,
        *,
        urgency: Urgency,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        begin_within_s: float | None = None,
        may_begin: Callable[[], Awaitable[bool]] | None = None,
        handing_over: Callable[[], None] | None = None,
    ) -> Outcome:
        """With `begin_within_s` the request is given up as NotWritten when it cannot have a connection in that time:
        what was decided before the call would be too old by then. `may_begin` is asked once there is a connection;
        `handing_over` is called after its yes, and the first byte follows at once, with nothing of the process in
        between. A send has its turn from whoever claimed it; what is less urgent waits for one here."""
        if urgency is Urgency.SEND:
            held_s = self._budget.held_s()
        else:
            held_s = await self._turn(urgency)
        if held_s > 0:
            return NotWritten("calls wait for the broker's rate limit", held_s)
        begin_by = None if begin_within_s is None else time.monotonic() + begin_within_s
        call = _Call(begin_by, may_begin, handing_over)
        within = None if begin_within_s is None else max(0.001, begin_within_s)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._exchange(method, path, params, content, call, within)
        except aiohttp.ConnectionTimeoutError:
            connecting = call.connecting
            reason = "it could not connect in time" if connecting else "no connection was free"
            return NotWritten(reason, withheld=not connecting)
        except TimeoutError:
            reason = f"no whole answer within {self._deadline_s} s"
        except (aiohttp.ClientError, OSError) as error:
            if call.withheld is not None:
                return NotWritten(call.withheld, withheld=True)
            reason = f"{type(error).__name__}: {error}"
        finally:
            call.over = True
        # What has no body is written as soon as there is a connection.
        sent = call.written if content is not None else call.connected
        return NoReply(reason) if sent else NotWritten(reason)

    async def _turn(self, urgency: Urgency) -> float:
        """For how long not to ask again, 0 when the call may go."""
        patience_s = min(self._deadline_s, MARKET_PATIENCE_S) if urgency is Urgency.MARKET else self._deadline_s
        if self._host is not None:
            # Nothing goes before market data there.
            held_s = await self._host.turn(Urgency.SEND, patience_s=patience_s / 2)
            if held_s > 0:
                return held_s
            patience_s /= 2
        return await self._budget.turn(urgency, patience_s=patience_s)

    async def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        content: bytes | None,
        call: _Call,
        within_s: float | None,
    ) -> Outcome:
        query = f"?{urlencode(params)}" if params else ""
        async with self._session.request(
            method,
            URL(f"{self._base_url}{path}{query}", encoded=True),
            data=None if content is None else _Body(content, call),
            allow_redirects=False,
            # One deadline over the whole call, above; this bounds the wait for a connection.
            timeout=aiohttp.ClientTimeout(total=None, connect=within_s),
            trace_request_ctx=call,
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return NoReply(f"answer longer than {MAX_BODY_BYTES} bytes")
        received_at = self._now()
        delay = retry_after(response.headers, received_at)
        budget = self._host or self._budget
        if response.status == TOO_MANY or (response.status == UNAVAILABLE and delay is not None):
            delay = budget.refused(delay)
        else:
            budget.taken()
        return Reply(
            status=response.status,
            body=bytes(body),
            received_at=received_at,
            retry_after_s=delay,
            dated_at=_http_date(response.headers.get("date")),
        )

    async def aclose(self) -> None:
        """Closes every connection; a call that is under way ends as NoReply or NotWritten."""
        if self._made is not None:
            await self._made.close()


def _http_date(text: str | None) -> datetime | None:
    try:
        read = None if text is None else email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return None if read is None else read.replace(tzinfo=read.tzinfo or UTC)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds the server asks us to wait, at most LONGEST_DELAY_S: Retry-After (RFC 9110, 10.2.3), or the reset time of
    its rate limit where that says nothing or "at once". Seconds may have a fraction, times be an HTTP date, RFC 3339 or
    Unix time in seconds or milliseconds; a time is compared with the server's own Date. None when it asks for nothing
    that can be read."""
    said_at = _time(headers.get("date", "")) or now
    asked = {name: _asked_delay(headers.get(name, ""), said_at) for name in _HINTS}
    readable = [
        min(max(0.0, delay), LONGEST_DELAY_S)
        for name, delay in asked.items()
        if delay is not None and (name == _HINTS[0] or math.isfinite(delay))
    ]
    return next((delay for delay in readable if delay > 0), readable[0] if readable else None)


def _asked_delay(text: str, said_at: datetime) -> float | None:
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        until = _time(text)
        return None if until is None else (until - said_at).total_seconds()
    number = float(text)
    if number < _FIRST_UNIX_S:
        return number
    return number / (1 if number < _FIRST_UNIX_MS else 1000) - said_at.timestamp()


def _time(text: str) -> datetime | None:
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text)
            return found.replace(tzinfo=found.tzinfo or UTC)
        except (ValueError, OverflowError):  # Not this form, or too many digits for a date.
            continue
    return None
