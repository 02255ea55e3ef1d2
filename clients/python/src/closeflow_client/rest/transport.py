"""Calls over REST: the only modules of the client that use httpx are here."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx

from closeflow_client.address import Address, Tls
from closeflow_client.calls import Call, Change, Reply
from closeflow_client.errors import AnswerUnreadable, CloseflowError
from closeflow_client.rest.events import EventStream
from closeflow_client.rest.messages import HttpRequest, reply_of, request_of, watch_request
from closeflow_client.retry import Unanswered
from closeflow_client.transport import USER_AGENT, Broken

_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=100)
_SILENCE_S: Final = 45.0
"""A watched stream has a sign of life every 15 seconds."""
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class RestTransport:
    """Over one pool of connections, from any thread."""

    def __init__(self, address: Address, tls: Tls) -> None:
        self._client = httpx.Client(**_settings(address, tls))

    def send(self, call: Call[Any], authorization: str | None, timeout_s: float) -> Reply:
        """Make one attempt."""
        request = self._client.build_request(**_arguments(request_of(call), authorization, timeout_s))
        try:
            response = self._client.send(request)
        except httpx.RequestError as error:
            return _unanswered(error)
        return _reply(response)

    def watch(
        self, request_id: UUID, last_event_id: str | None, authorization: str | None
    ) -> Generator[Change | None, None, None]:
        """States as they come, None for signs of life. Raises Broken."""
        asked = _arguments(watch_request(request_id, last_event_id), authorization, _SILENCE_S)
        stream = EventStream()
        try:
            with self._client.stream(**asked) as response:
                if response.status_code != 200:
                    response.read()
                    raise Broken(_refused(response))
                for piece in response.iter_bytes():
                    yield from stream.feed(piece)
                    yield None
        except httpx.RequestError as error:
            raise Broken(_unanswered(error)) from error

    def close(self) -> None:
        """End its connections."""
        self._client.close()


class AsyncRestTransport:
    """Over one pool of connections, in one event loop."""

    def __init__(self, address: Address, tls: Tls) -> None:
        self._client = httpx.AsyncClient(**_settings(address, tls))

    async def send(self, call: Call[Any], authorization: str | None, timeout_s: float) -> Reply:
        """Make one attempt."""
        request = self._client.build_request(**_arguments(request_of(call), authorization, timeout_s))
        try:
            response = await self._client.send(request)
        except httpx.RequestError as error:
            return _unanswered(error)
        return _reply(response)

    async def watch(
        self, request_id: UUID, last_event_id: str | None, authorization: str | None
    ) -> AsyncGenerator[Change | None, None]:
        """States as they come, None for signs of life. Raises Broken."""
        asked = _arguments(watch_request(request_id, last_event_id), authorization, _SILENCE_S)
        stream = EventStream()
        try:
            async with self._client.stream(**asked) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise Broken(_refused(response))
                async for piece in response.aiter_bytes():
                    for change in stream.feed(piece):
                        yield change
                    yield None
        except httpx.RequestError as error:
            raise Broken(_unanswered(error)) from error

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()


def _settings(address: Address, tls: Tls) -> dict[str, Any]:
    return {
        "base_url": address.url,
        "verify": tls.context() if address.encrypted else True,
        "headers": {"user-agent": USER_AGENT},
        "limits": _LIMITS,
    }


def _arguments(asked: HttpRequest, authorization: str | None, timeout_s: float) -> dict[str, Any]:
    headers = dict(asked.headers) | ({"authorization": authorization} if authorization is not None else {})
    return {
        "method": asked.method,
        "url": asked.path,
        "params": dict(asked.query) or None,
        "headers": headers,
        "content": asked.body,
        "timeout": timeout_s,
    }


def _reply(response: httpx.Response) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return reply_of(response.status_code, headers, response.content, now=datetime.now(UTC))


def _refused(response: httpx.Response) -> CloseflowError:
    reply = _reply(response)
    return reply if isinstance(reply, CloseflowError) else AnswerUnreadable("a watch was answered, but not with events")


def _unanswered(error: httpx.RequestError) -> Unanswered:
    message = str(error) or "no more is known"
    sent = not isinstance(error, _NOT_SENT)
    return Unanswered(f"{type(error).__name__}: {message}", sent=sent, hopeless=_not_trusted(error))


def _not_trusted(error: BaseException | None) -> bool:
    """Whether a certificate was refused, which it will be again."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
