"""`closectl top`: one frame, or one after the other until Ctrl-C."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from closectl.arguments import proper_name
from closectl.environment import database_dsn, database_says, with_database
from closectl.output import console, fail
from closectl.platform.connector import slot_of
from closectl.top.reading import Frame, UnknownAccounts, read_frame
from closectl.top.rendering import rendered
from closeflow.storage.core.engine import Database, DatabaseError

PIPED_WIDTH: Final = 320
"""Columns where there is no terminal that could say how many it has: so many that a close is one line."""
BESIDE_CLOSES: Final = 24
"""Lines of a screen that are not of closes; each of these takes about two."""

Accounts = Annotated[list[str] | None, typer.Option("--account", help="Only this account; may be given again.")]


def top(
    account: Accounts = None,
    interval: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds from one look to the next.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="With --once: at most so many closes.")] = 100,
) -> None:
    """Watch what does not close: the closes that wait, the longest first, each with what it waits for, what happens
    next and when, who acts, and the command that is safe to give now; open incidents; lights for what surrounds them.

    It only reads. Ctrl-C ends it. While the database does not answer, the last frame stays, with its age in red.
    """
    accounts = None if account is None else frozenset(filter(None, map(proper_name, account)))
    place = urlsplit(database_dsn("role closeflow_operator"))
    name = place.path.strip("/")
    view = View(instance=f"{name} at {place.hostname}:{place.port or 5432}", slot=slot_of(name), accounts=accounts)
    try:
        if once:
            screen = console if console.is_terminal else Console(width=max(PIPED_WIDTH, console.width))
            screen.print(with_database(view.one).show(most=limit))
        else:
            with suppress(KeyboardInterrupt):
                with_database(lambda database: view.live(database, interval_s=interval))
    except UnknownAccounts as error:
        fail(str(error))


@dataclass(slots=True)
class View:
    """What was seen last, and why it is not newer."""

    instance: str
    slot: str
    accounts: Collection[str] | None
    frame: Frame | None = None
    read_at: float = 0.0
    trouble: str | None = None

    async def one(self, database: Database) -> View:
        """Look once; raises DatabaseError."""
        self.frame = await read_frame(database, slot=self.slot, accounts=self.accounts)
        self.read_at, self.trouble = time.monotonic(), None
        return self

    async def live(self, database: Database, *, interval_s: float) -> None:
        """Look and show for ever. Only before the first frame an error of the database is raised."""
        await self.one(database)
        with Live(self._screen(), console=console, screen=True, auto_refresh=False) as screen:
            while True:
                await asyncio.sleep(interval_s)
                try:
                    async with asyncio.timeout(max(5.0, interval_s)):
                        await self.one(database)
                except (DatabaseError, TimeoutError) as error:
                    self.trouble = "no answer" if isinstance(error, TimeoutError) else database_says(error)
                screen.update(self._screen(), refresh=True)

    def _screen(self) -> RenderableType:
        return self.show(most=max(1, (console.height - BESIDE_CLOSES) // 2))

    def show(self, *, most: int) -> RenderableType:
        """The frame as it is now."""
        assert self.frame is not None, "one was read"
        return rendered(
            self.frame,
            instance=self.instance,
            accounts=self.accounts,
            age=timedelta(seconds=time.monotonic() - self.read_at),
            trouble=self.trouble,
            most=most,
        )
