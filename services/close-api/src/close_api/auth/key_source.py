"""Where a key set is read from: a file, or an address over HTTP. Its bytes, within limits, or why there are none."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from close_api.auth.jwks import MAX_BYTES
from closeflow.clock import timeout

FETCH_DEADLINE_S: Final = 5.0
_REDIRECTS: Final = 3
_STATUSES_OF_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class SourceAway(Exception):
    """The source gave no key set; the text says why, without what an address may hold beside its path."""


def is_address(jwks: str) -> bool:
    """Whether the setting is an address of HTTP; anything else is the path of a file."""
    return jwks.lower().startswith(("http://", "https://"))


def open_at_once(path: str, flags: int) -> int:
    """An opener for `open`: a pipe without a writer would wait for one."""
    return os.open(path, flags | os.O_NONBLOCK)


class KeyFile:
    """A file that somebody replaces, or writes anew in place."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._settled = False

    def read(self) -> bytes | None:
        """The bytes of the file, or None while they are those of the read before. Raises SourceAway.

        A file that was written within the tick of its time stamp looks unchanged afterwards, so what is new is read at
        two calls; they must not follow each other at once.
        """
        try:
            with open(self._path, "rb", opener=open_at_once) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise self._away("it is not a file")
                state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                if state == self._seen and self._settled:
                    return None
                body = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise self._away(error) from None
        self._settled = state == self._seen
        self._seen = state
        return body

    def forget(self) -> None:
        """Read it again at the next call, changed or not."""
        self._seen = None

    def _away(self, reason: OSError | ValueError | str) -> SourceAway:
        self.forget()
        return SourceAway((reason.strerror if isinstance(reason, OSError) else None) or str(reason))


class KeyAddress:
    """An address that is asked over HTTP. It may lead on within its own origin, never to another."""

    def __init__(self, address: str) -> None:
        self._url = URL(address)
        self.name = str(self._url.with_user(None).with_query(None).with_fragment(None))

    async def read(self) -> bytes:
        """The body of a 200, asked for anew. Raises SourceAway, at the latest after FETCH_DEADLINE_S."""
        try:
            async with (
                timeout(FETCH_DEADLINE_S),
                aiohttp.ClientSession(
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None),
                    # A small body that unfolds to a large one is not read at all.
                    auto_decompress=False,
                    headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
                ) as session,
            ):
                return await self._ask(session)
        except TimeoutError:
            raise SourceAway(f"no whole answer within {FETCH_DEADLINE_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceAway(_cause(error)) from None

    async def _ask(self, session: aiohttp.ClientSession) -> bytes:
        url = self._url
        for _ in range(_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as answer:
                if answer.status in _STATUSES_OF_REDIRECTS:
                    url = self._next(url, answer.headers.get("location", ""))
                    continue
                if answer.status != 200:
                    raise SourceAway(f"HTTP {answer.status}")
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise SourceAway("the answer is compressed, which was not asked for")
                return await _bounded(answer.content)
        raise SourceAway(f"more than {_REDIRECTS} redirects")

    def _next(self, url: URL, location: str) -> URL:
        following = url.join(URL(location))
        if following.scheme not in ("http", "https") or following.origin() != self._url.origin():
            raise SourceAway("it redirects to another origin")
        return following


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """At most one piece more than a key set may have: that much says that it is too large."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            break
    return bytes(body)


def _cause(error: Exception) -> str:
    """The kind of a failure and what the system calls it: the text of an error may repeat the whole address."""
    system = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    told = system.strerror if isinstance(system, OSError) else None
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
