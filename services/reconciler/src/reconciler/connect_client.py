"""Kafka Connect's REST interface, as much as the watch of one connector needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from closeflow.domain.outbox.replication_slot import Connector, Part
from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls

_DEADLINE_S: Final = 10.0


class ConnectUnreachable(Exception):
    """No answer that says anything: the worker is away, starting, or moves its connectors around just now."""


@dataclass(frozen=True, slots=True)
class Connect:
    """One connector of one worker. Every call raises ConnectUnreachable."""

    _client: httpx.AsyncClient
    name: str

    async def status(self) -> Connector | None:
        """None when the worker does not know the connector."""
        answer = await self._ask("GET", "/status", (200, 404))
        if answer.status_code == 404:
            return None
        try:
            told = answer.json()
            return Connector(_part(told["connector"]), tuple(_part(task) for task in told["tasks"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ConnectUnreachable(f"the worker's answer is no connector status: {answer.text[:200]}") from error

    async def restart(self, *, only_failed: bool) -> None:
        """Restart the connector and its tasks, or those of them that are FAILED."""
        await self._ask("POST", f"/restart?includeTasks=true&onlyFailed={str(only_failed).lower()}", (200, 202, 204))

    async def stop(self) -> None:
        """It is STOPPED some time later; its offsets and configuration stay."""
        await self._ask("PUT", "/stop", (202, 204))

    async def forget_offsets(self) -> None:
        """Only a STOPPED connector's can be forgotten; nothing to forget is fine."""
        await self._ask("DELETE", "/offsets", (200, 404))

    async def resume(self) -> None:
        """Let the connector and its tasks run again; returns before they do."""
        await self._ask("PUT", "/resume", (202, 204))

    async def _ask(self, method: str, path: str, expected: tuple[int, ...]) -> httpx.Response:
        url = f"/connectors/{quote(self.name, safe='')}{path}"
        try:
            answer = await self._client.request(method, url)
        except httpx.HTTPError as error:
            raise ConnectUnreachable(f"{method} {url}: {type(error).__name__} {error}") from error
        if answer.status_code not in expected:
            raise ConnectUnreachable(f"{method} {url}: {answer.status_code} {answer.text[:200]}")
        return answer


@asynccontextmanager
async def open_connect(url: str, name: str, tls: ClientTls = SYSTEM_AUTHORITIES) -> AsyncIterator[Connect]:
    """A client of one connector, closed at the end; nothing is asked yet."""
    verify = tls.context() if url.startswith("https:") else True
    async with httpx.AsyncClient(base_url=url, timeout=_DEADLINE_S, verify=verify) as client:
        yield Connect(client, name)


def _part(told: Mapping[str, Any]) -> Part:
    return Part(str(told["state"]), str(told.get("trace", "")))
