"""Small writes in groups: what waits while one transaction commits goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Grouped(Generic[T, R]):
    """`write` takes a group of at most `most` items and gives a result for each; what it raises, each of them gets."""

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int) -> None:
        self._write = write
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, item: T) -> R:
        """Returns once the item's group is written."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        return await done

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                results = await self._write([item for item, _ in group])
            except Exception as error:
                _fail(group, error)
                continue
            for (_, done), result in zip(group, results, strict=True):
                if not done.done():
                    done.set_result(result)


def _fail(group: Sequence[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error)
