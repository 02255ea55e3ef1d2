"""Bytes to and from Alpaca: request bodies that repeat exactly, and one HTTP call whose every outcome is a value."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import structlog
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from closeflow.broker.alpaca.retry_hints import (
    http_date,
    retry_after,
)
from closeflow.broker.budget import CallBudget, Urgency
from closeflow.domain.model import AssetType, OrderType, Side
from closeflow.domain.option_symbol import read_option
from closeflow.domain.sending.ticket import Ticket
from closeflow.domain.text import decimal_text
from closeflow.tasks import being_cancelled
from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls

log = structlog.get_logger(__name__)

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MARKET_PATIENCE_S: Final = 1.0
"""Less than anybody waits for market data: who has no turn by then is told so, and does not blame the feed."""
TOO_MANY: Final = 429
UNAVAILABLE: Final = 503


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

    def without_answer(self, content: bytes | None, reason: str, *, withheld: bool = False) -> NotWritten | NoReply:
        """What has no body counts as written as soon as there was a connection."""
        sent = self.connected if content is None else self.written
        return NoReply(reason) if sent else NotWritten(reason, withheld=withheld)

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
        except Exception as error:
            if not isinstance(error, _Withheld | OSError):
                log.exception("request_not_begun")
            self.withheld = str(error) or type(error).__name__
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


class _Connector(aiohttp.TCPConnector):
    """Takes no connection on which something came while nobody had asked: it would be read as the next answer."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's own)
    ) -> aiohttp.connector.Connection:
        """One that is new, or idle and silent."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


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
        tls: ClientTls | None = None,
    ) -> None:
        """Every call is counted in the `budget`. A server with a limit of its own has its `host` budget besides: what
        it refuses says nothing of the other calls."""
        self._base_url = str(URL(base_url)).rstrip("/")
        self._headers = {**headers, "Accept": "application/json"}
        self._connections = connections
        self._now = now
        self._budget = budget
        self._host = host
        self._deadline_s = deadline_s
        self._tls = tls or SYSTEM_AUTHORITIES
        self._made: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Made at the first call, because it belongs to the running loop."""
        if self._made is None:
            self._made = aiohttp.ClientSession(
                connector=_Connector(limit=self._connections, ssl=self._context()),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[_tracing()],
            )
        return self._made

    def _context(self) -> ssl.SSLContext | bool:
        """As aiohttp has it: True is its own, which a plain URL never uses."""
        return self._tls.context() if self._base_url.startswith("https:") else True

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
        if self._closed:
            return NotWritten("closed", withheld=True)
        begin_by = None if begin_within_s is None else time.monotonic() + begin_within_s
        call = _Call(begin_by, may_begin, handing_over)
        within = None if begin_within_s is None else max(0.001, begin_within_s)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._exchange(method, path, params, content, call, within)
        except aiohttp.ConnectionTimeoutError:
            reason = "it could not connect in time" if call.connecting else "no connection was free"
            return call.without_answer(content, reason, withheld=not call.connecting)
        except TimeoutError:
            reason = f"no whole answer within {self._deadline_s} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if call.withheld is not None:
                return NotWritten(call.withheld, withheld=True)
            reason = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            if not self._closed or being_cancelled():
                raise
            reason = "closed"
        finally:
            call.over = True
        return call.without_answer(content, reason)

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
            early = content is not None and not call.written
            call.over = early  # What answers a request that has not gone is of another one, and this one does not go.
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return NoReply(f"answer longer than {MAX_BODY_BYTES} bytes")
        if early:
            return NotWritten(f"HTTP {response.status} came before the request")
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
            dated_at=http_date(response.headers.get("date")),
        )

    async def aclose(self) -> None:
        """Closes every connection; a call that is under way ends as NoReply or NotWritten."""
        self._closed = True
        if self._made is not None:
            await self._made.close()
