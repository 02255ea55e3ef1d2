"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload
from uuid import UUID

from closeflow_client.address import File, Tls, Token, authorization_of, read_address
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
from closeflow_client.connect import open_transport
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


class Client:
    """close-api over REST (`http://`, `https://`) or gRPC (`grpc://`, `grpcs://`), from any number of threads.

    What it sends is retried for up to `retry_for` seconds where that is safe, always under the same key; `timeout`
    bounds one attempt (over REST, each wait for the network in it). Every method raises CloseflowError, with a class
    for each code; a wrong argument TypeError or ValueError before anything is sent.
    """

    def __init__(
        self,
        address: str,
        token: Token = None,
        *,
        timeout: float = 10.0,
        retry_for: float = 30.0,
        ca_file: File | None = None,
        certificate_file: File | None = None,
        key_file: File | None = None,
    ) -> None:
        self._token = token
        self._limits = Limits(timeout_s=timeout, retry_for_s=retry_for)
        self._transport = open_transport(read_address(address), Tls(ca_file, certificate_file, key_file))

    @overload
    def close(
        self, position_id: int, *, dry_run: Literal[False] = False, **terms: Unpack[CloseTerms]
    ) -> CloseRequest: ...

    @overload
    def close(self, position_id: int, *, dry_run: Literal[True], **terms: Unpack[CloseTerms]) -> ClosePlan: ...

    def close(
        self, position_id: int, *, dry_run: bool = False, **terms: Unpack[CloseTerms]
    ) -> CloseRequest | ClosePlan:
        """Close a position, all of it by default; `Close` lists the terms. When this returns, the close request is
        accepted and durable; `wait` and `watch` follow it. `dry_run` makes every check, keeps nothing, and returns the
        plan."""
        close = Close(position_id, **terms)
        if dry_run:
            return self._run(exchange(plan_call(close), self._limits))
        return self._run(exchange(close_call(close), self._limits))

    def close_many(self, closes: Iterable[Close], *, batch_key: str | None = None) -> list[Outcome]:
        """Close many, 500 at a time. For each, in order, a CloseRequest, or the CloseflowError that `close` would have
        raised. One without a key gets one made of `batch_key` and its position, or a new one."""
        return self._run(close_many(with_keys(closes, batch_key), self._limits))

    def get(self, close_request_id: UUID | str) -> CloseRequest:
        """A close request now."""
        return self._run(exchange(GetCloseRequest(check_request_id(close_request_id)), self._limits))

    def list(
        self,
        *,
        account: str | None = None,
        status: str | None = None,
        position_id: int | None = None,
        created_after: datetime | None = None,
        page_size: int = 0,
    ) -> Iterator[CloseRequest]:
        """Close requests, the newest first; a page is asked for when it is reached."""
        return self._pages(close_requests_call(account, status, position_id, created_after, page_size))

    def cancel(self, close_request_id: UUID | str, *, reason: str | None = None) -> CloseRequest:
        """Stop a close: withdraw it, or cancel its order at the broker, which may have filled it by then. Harmless when
        repeated."""
        return self._run(exchange(cancel_call(close_request_id, reason), self._limits))

    def wait(self, close_request_id: UUID | str, *, timeout: float | None = None) -> CloseRequest:
        """The close request once it is over. Raises NotFinal after `timeout` seconds, if it is given."""
        return self._run(wait_until_final(check_request_id(close_request_id), self._limits, timeout_s=timeout))

    def watch(self, close_request_id: UUID | str) -> Iterator[CloseRequest]:
        """The close request now and at each change, until it is over; a lost connection is resumed where it was."""
        return self._watch(Watching(check_request_id(close_request_id), self._limits))

    def position(self, position_id: int) -> Position:
        """A position now."""
        return self._run(exchange(GetPosition(check_position_id(position_id)), self._limits))

    def positions(
        self,
        *,
        account: str | None = None,
        status: str | None = None,
        symbol: str | None = None,
        page_size: int = 0,
    ) -> Iterator[Position]:
        """Positions by id; a page is asked for when it is reached."""
        return self._pages(positions_call(account, status, symbol, page_size))

    def disconnect(self) -> None:
        """End its connections; leaving a `with` block does that too."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def _run(self, steps: Steps[Result]) -> Result:
        reply: Reply | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            match step:
                case Send(call=call, timeout_s=timeout_s):
                    reply = self._transport.send(call, self._authorization(), timeout_s)
                case Pause(seconds=seconds):
                    reply = None
                    time.sleep(seconds)

    def _pages(self, call: ListCall[Item]) -> Iterator[Item]:
        while True:
            page = self._run(exchange(call, self._limits))
            yield from page.items
            if not page.next_page_token:
                return
            call = call.at(page.next_page_token)

    def _watch(self, watching: Watching) -> Iterator[CloseRequest]:
        while True:
            failure: Failure = ENDED
            changes = self._transport.watch(watching.request_id, watching.last_event_id, self._authorization())
            try:
                with closing(changes):
                    for change in changes:
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
            time.sleep(pause_s)

    def _authorization(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        return None if token is None else authorization_of(token)
