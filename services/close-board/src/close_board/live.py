"""What pages show now, and what of it changed since they last heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import orjson

from close_board.asked import Told, ask
from close_board.close_api import Away, CloseApi
from close_board.progress import Progress
from close_board.read_model import ReadModel
from close_board.render import Fresh, Pages, Screen, title_of
from close_board.view import Board, Sees, look, stuck
from close_board.viewers import NotAdmitted, Viewer, Viewers
from closeflow.clock import monotonic, timeout, utc_now
from closeflow.domain.text import time_text

ASKED_EVERY_S: Final = 2.0
KEEP_ALIVE_S: Final = 5.0
"""A page that hears nothing for longer than twice this says that it is cut off."""
Parts = tuple[str, Mapping[str, str], Mapping[str, str] | None]
"""A title, parts by id, and rows by id, if the page has them."""


@dataclass(slots=True)
class Live:
    """`still_after` and `old_after` are the settings; `stopping` ends every stream."""

    model: ReadModel
    progress: Progress
    viewers: Viewers
    api: CloseApi
    pages: Pages
    still_after: timedelta
    old_after: timedelta
    refresh_s: float
    stopping: asyncio.Event
    _looks: dict[object, tuple[float, Board]] = field(default_factory=dict)

    def board(self, viewer: Viewer, account: str | None) -> Board:
        """Made at most once each half refresh for all who see the same."""
        key, now = (viewer.group, account), monotonic()
        known = self._looks.get(key)
        if known is not None and now - known[0] < self.refresh_s / 2:
            return known[1]
        self._looks = {one: found for one, found in self._looks.items() if now - found[0] < self.refresh_s}

        board = look(self.model, _sees(viewer, account), now=utc_now(), still_after=self.still_after)
        self._looks[key] = now, board
        return board

    def fresh(self, told: Told) -> Fresh:
        """Whether what is shown is old: where the log was not read to its end for long, where its writer does not write
        (the connector's light is red), and where close-api does not answer."""
        now, reasons, at = utc_now(), [], self.progress.as_of
        old = at is None or now - at > self.old_after
        if old and self.progress.waiting:
            reasons.append(f"{self.progress.waiting} records are not read yet")
        elif old and at is not None:
            reasons.append("Kafka does not answer")
        connector = next((one for one in told.lights if one["name"] == "connector"), None)
        if connector is not None and connector["colour"] == "red":
            reasons.append(f"newer events may not be published: {connector['says']}")
        if told.away is not None:
            since = f" since {told.at:%H:%M:%S} UTC" if told.at is not None else ""
            reasons.append(f"lights, incidents and waits are not known anew{since}: {told.away}")
        return Fresh(at, bool(old or reasons), tuple(reasons))

    def screen(self, viewer: Viewer, account: str | None, told: Told) -> Screen:
        """All that the page is made of."""
        board, sees = self.board(viewer, account), _sees(viewer, account)
        found = stuck(board, self.model, told.waits, sees, now=utc_now(), still_after=self.still_after)
        reading = ""
        if self.progress.as_of is None:
            done = self.progress.total - self.progress.waiting
            reading = f"The log is read: {done} of {self.progress.total} records. What is shown is not whole yet."
        return Screen(viewer, account, board, found, told, self.fresh(told), reading)

    async def first(self, viewer: Viewer, account: str | None) -> Screen:
        """For a page that is opened."""
        return self.screen(viewer, account, await ask(self.api, viewer, Told(), account=account))

    async def of_board(self, token: str, account: str | None) -> AsyncIterator[bytes]:
        """Server-sent events of the board."""
        told, asked_at = Told(), float("-inf")

        async def parts(viewer: Viewer) -> Parts:
            nonlocal told, asked_at
            if monotonic() - asked_at >= ASKED_EVERY_S:
                told = await ask(self.api, viewer, told, account=account)
                asked_at = monotonic()
            screen = self.screen(viewer, account, told)
            return title_of(screen), self.pages.parts(screen), self.pages.rows(screen)

        async for event in self.follow(token, parts):
            yield event

    async def follow(self, token: str, made: Callable[[Viewer], Awaitable[Parts]]) -> AsyncIterator[bytes]:
        """An event whenever something changed, at least each `KEEP_ALIVE_S`; it ends where the viewer is not admitted
        any more, or the service stops."""
        yield b"retry: 1000\n\n"
        sent = _Sent()
        while not self.stopping.is_set():
            try:
                viewer = await self.viewers.admit(token)
            except NotAdmitted:
                yield b"event: over\ndata: {}\n\n"
                return
            except Away:
                await self._pause()
                continue
            event = sent.event(*await made(viewer), now=utc_now())
            if event is not None:
                yield event
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with timeout(self.refresh_s):
                await self.stopping.wait()
        except TimeoutError:
            return


def _sees(viewer: Viewer, account: str | None) -> Sees:
    return lambda one: viewer.sees(one) and account in (None, one)


@dataclass(slots=True)
class _Sent:
    """What one page has been told."""

    parts: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    at: float = float("-inf")

    def event(
        self, title: str, parts: Mapping[str, str], rows: Mapping[str, str] | None, *, now: datetime
    ) -> bytes | None:
        """What differs, as an event; None where nothing does and the page heard something lately."""
        changed = [{"part": name, "html": html} for name, html in parts.items() if self.parts.get(name) != html]
        of_rows = []
        if rows is not None and (rows != self.rows or list(rows) != list(self.rows)):
            differ = {name: html for name, html in rows.items() if self.rows.get(name) != html}
            of_rows.append({"part": "stuck", "order": list(rows), "rows": differ})
        if not changed and not of_rows and monotonic() - self.at < KEEP_ALIVE_S:
            return None
        self.parts, self.rows, self.at = dict(parts), dict(rows or {}), monotonic()
        body = orjson.dumps({"at": time_text(now), "title": title, "parts": changed, "rows": of_rows})
        return b"event: change\ndata: " + body + b"\n\n"
