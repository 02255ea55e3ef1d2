"""An address that stays while servers change behind it, as a -rw service or a virtual IP does for an operator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self


class Address:
    """Forwards TCP on 127.0.0.1:`port` to another port of this machine, from a thread of its own."""

    def __init__(self, target: int | None, port: int = 0) -> None:
        self.port = port
        self._target = target
        self._holds = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())

    def leads_to(self, target: int | None) -> None:
        """From now on it leads there; what is connected is cut off. None: whoever connects is cut off at once."""
        self._call(self._turn(target))

    def hold(self) -> None:
        """Pass no byte on from now on, in neither direction, and cut nothing off: a network that swallows packets."""
        self._loop.call_soon_threadsafe(self._holds.set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _turn(self, target: int | None) -> None:
        self._target = target
        self._holds.clear()
        for writer in list(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._turn(None)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._target is None:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(back)
            try:
                ways = {asyncio.create_task(self._pass(reader, back)), asyncio.create_task(self._pass(there, writer))}
                _, rest = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in rest:
                    way.cancel()
            finally:
                self._open.discard(back)
                back.transport.abort()
        except (OSError, asyncio.CancelledError):  # Cancelled only at the end, and nobody waits for it.
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._holds.is_set():
                    await asyncio.sleep(3600)
                writer.write(data)
                await writer.drain()
