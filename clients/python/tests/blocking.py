"""Both clients under one face, so that every test is run with each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from closeflow_client import AsyncClient, Client


@contextmanager
def blocking(kind: str, address: str, token: Any = "token", **settings: Any) -> Iterator[Client]:
    """A `Client`, or an `AsyncClient` whose methods are run to their end in an event loop of their own."""
    if kind == "sync":
        with Client(address, token, **settings) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        async_client = runner.run(_made(address, token, settings))
        yield cast(Client, _Face(async_client, runner))
        runner.run(async_client.disconnect())


async def _made(address: str, token: Any, settings: dict[str, Any]) -> AsyncClient:
    return AsyncClient(address, token, **settings)


class _Face:
    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*given: Any, **named: Any) -> Any:
            found = method(*given, **named)
            return self._runner.run(found) if inspect.iscoroutine(found) else self._items(found)

        return call

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        ended = object()

        async def following() -> Any:
            return await anext(items, ended)

        while (item := self._runner.run(following())) is not ended:
            yield item
