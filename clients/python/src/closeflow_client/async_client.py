"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload
from uuid import UUID

from closeflow_client.address import AsyncToken, File, Tls, authorization_of, read_address
from closeflow_client.calls import (
    GetCloseRequest,
    GetPosition,
    ListCall,
    Outcome,
    Reply,
    cancel_call,
    close_call,
    close_requests_call,
    plan_call,
    positions_call,
)
from closeflow_client.close import Close, CloseTerms, check_position_id, check_request_id, with_keys
from closeflow_client.connect import open_async_transport
from closeflow_client.exchange import (
    ENDED,
    Limits,
    Pause,
    Send,
    Steps,
    Watching,
    close_many,
    exchange,
    wait_until_final,
)
from closeflow_client.retry import Failure
from closeflow_client.transport import Broken
from closeflow_client.values import ClosePlan, CloseRequest, Position

Result = TypeVar("Result")
Item = TypeVar("Item")


class AsyncClient:
    """As `Client`, in one event loop and for any number of its tasks. `token` may be a function that is awaited.

    A call that is cancelled may have been accepted all the same: its key finds out.
    """

    def __init__(
        self,
        address: str,
        token: AsyncToken = None,
        *,
        timeout: float = 10.0,
        retry_for: float = 30.0,
        ca_file: File | None = None,
        certificate_file: File | None = None,
        key_file: File | None = None,
    ) -> None:
        self._token = token
        self._limits = Limits(timeout_s=timeout, retry_for_s=retry_for)
        self._transport = open_async_transport(read_address(address), Tls(ca_file, certificate_file, key_file))

    @overload
    async def close(
        self, position_id: int, *, dry_run: Literal[False] = False, **terms: Unpack[CloseTerms]
    ) -> CloseRequest: ...

    @overload
    async def close(self, position_id: int, *, dry_run: Literal[True], **terms: Unpack[CloseTerms]) -> ClosePlan: ...

    async def close(
        self, position_id: int, *, dry_run: bool = False, **terms: Unpack[CloseTerms]
    ) -> CloseRequest | ClosePlan:
        """As `Client.close`."""
        close = Close(position_id, **terms)
        if dry_run:
            return await self._run(exchange(plan_call(close), self._limits))
        return await self._run(exchange(close_call(close), self._limits))

    async def close_many(self, closes: Iterable[Close], *, batch_key: str | None = None) -> list[Outcome]:
        """As `Client.close_many`."""
        return await self._run(close_many(with_keys(closes, batch_key), self._limits))

    async def get(self, close_request_id: UUID | str) -> CloseRequest:
        """A close request now."""
        return await self._run(exchange(GetCloseRequest(check_request_id(close_request_id)), self._limits))

    def list(
        self,
        *,
        account: str | None = None,
        status: str | None = None,
        position_id: int | None = None,
        created_after: datetime | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[CloseRequest]:
        """Close requests, the newest first; a page is asked for when it is reached."""
        return self._pages(close_requests_call(account, status, position_id, created_after, page_size))

    async def cancel(self, close_request_id: UUID | str, *, reason: str | None = None) -> CloseRequest:
        """As `Client.cancel`."""
        return await self._run(exchange(cancel_call(close_request_id, reason), self._limits))

    async def wait(
        self,
        close_request_id: UUID | str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server does the waiting, and is told for how long
    ) -> CloseRequest:
        """As `Client.wait`."""
        return await self._run(wait_until_final(check_request_id(close_request_id), self._limits, timeout_s=timeout))

    def watch(self, close_request_id: UUID | str) -> AsyncIterator[CloseRequest]:
        """The close request now and at each change, until it is over; a lost connection is resumed where it was."""
        return self._watch(Watching(check_request_id(close_request_id), self._limits))

    async def position(self, position_id: int) -> Position:
        """A position now."""
        return await self._run(exchange(GetPosition(check_position_id(position_id)), self._limits))

    def positions(
        self,
        *,
        account: str | None = None,
        status: str | None = None,
        symbol: str | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Position]:
        """Positions by id; a page is asked for when it is reached."""
        return self._pages(positions_call(account, status, symbol, page_size))

    async def disconnect(self) -> None:
        """End its connections; leaving an `async with` block does that too."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    async def _run(self, steps: Steps[Result]) -> Result:
        reply: Reply | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            match step:
                case Send(call=call, timeout_s=timeout_s):
                    reply = await self._transport.send(call, await self._authorization(), timeout_s)
                case Pause(seconds=seconds):
                    reply = None
                    await asyncio.sleep(seconds)

    async def _pages(self, call: ListCall[Item]) -> AsyncIterator[Item]:
        while True:
            page = await self._run(exchange(call, self._limits))
            for item in page.items:
                yield item
            if not page.next_page_token:
                return
            call = call.at(page.next_page_token)

    async def _watch(self, watching: Watching) -> AsyncIterator[CloseRequest]:
        while True:
            failure: Failure = ENDED
            changes = self._transport.watch(watching.request_id, watching.last_event_id, await self._authorization())
            try:
                async with aclosing(changes):
                    async for change in changes:
                        request = watching.heard(change)
                        if request is not None:
                            yield request
                            if request.final:
                                return
            except Broken as broken:
                failure = broken.failure
            pause_s = watching.pause_s(failure)
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)

    async def _authorization(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        return None if token is None else authorization_of(token)
