"""What close-api is asked with the token of whoever looks: who that is, what the topics do not tell, and to act.

The board has no rights of its own there, and no keys to check a token with.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from closeflow.tls import ClientTls

DEADLINE_S: Final = 5.0
_LARGEST_ANSWER: Final = 4 * 1024 * 1024


class Away(Exception):
    """close-api gave no answer that says anything; the text says why."""


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """close-api's own answer to a call that failed: its status, code, and what it said to do, for people."""

    status: int
    code: str
    detail: str


class CloseApi:
    """Every call raises Away, or Refused with close-api's answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def get(self, token: str, path: str, **query: str) -> dict[str, Any]:
        """The members of the answer."""
        return await self._ask("GET", path, token, query=query)

    async def send(self, token: str, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        """The members of the answer to a call that changes something; it is made once."""
        return await self._ask(method, path, token, body=body)

    async def _ask(
        self,
        method: str,
        path: str,
        token: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=query,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as answer:
                raw = await answer.content.read(_LARGEST_ANSWER)
                members = json.loads(raw, parse_float=str)
                if not isinstance(members, dict):
                    raise Away(f"close-api answered {answer.status} without an object")
                if answer.status >= 400:
                    raise Refused(answer.status, str(members.get("code", "")), _told(members))
                return members
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Away(f"close-api does not answer ({type(error).__name__})") from None
        except ValueError:
            raise Away("close-api's answer is not its own") from None


def _told(members: Mapping[str, Any]) -> str:
    reasons = members.get("reasons") or [members[one] for one in ("reason", "scope") if one in members]
    fields = [f"{one['field']} {one['message']}" for one in members.get("fields") or []]
    return "; ".join(map(str, [members.get("detail", "no detail"), *reasons, *fields]))


@asynccontextmanager
async def open_close_api(url: str, tls: ClientTls) -> AsyncIterator[CloseApi]:
    """A client that is closed at the end; nothing is asked yet. Its connections keep no cookies."""
    connector = aiohttp.TCPConnector(ssl=tls.context() if url.startswith("https:") else True, limit=50)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=DEADLINE_S)
    ) as session:
        yield CloseApi(session, url)
