"""Closes on the deployed system, from outside of it: over both doors, and looked at through its own command line."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from closeflow_client import AsyncClient, CloseRequest
from deploy.compose.project import Project

BEFORE_THE_KILL: Final = 30
EVERY_S: Final = 0.05
CLOSED_WITHIN_S: Final = 480.0
IN_PARTS: Final = "Behaviour(execution=FillInParts(parts=3, every_s=0.4))"


@dataclass(slots=True)
class Desk:
    """A portfolio service, and the person who looks whether what became of its closes is right."""

    project: Project
    directory: Path
    token: str = ""
    authority: Path = Path()
    ids: dict[str, int] = field(default_factory=dict)
    """Position by symbol."""

    def start(self, positions: Path) -> None:
        """Everything running, with these positions here and at the broker, whose quotes stand still."""
        self.project.up()
        self.project.closectl("positions", "import", "/given", mounted=positions)
        self.authority = self.project.authority(self.directory)
        self.token = self.project.token()
        rows = self.project.closectl_json("positions", "list", "--limit", "10000")
        self.ids = {row["symbol"]: row["id"] for row in rows}
        names = json.dumps(sorted(self.ids))
        self.project.at_broker(f"[control.pin_quote(one, '99.95', '100.05') for one in {names}]")
        self.project.at_broker(f"control.script({IN_PARTS})")

    def close(self, symbols: Sequence[str], in_between: Callable[[], None]) -> list[CloseRequest]:
        """Ask for all of them, half over each door; `in_between` runs after the first 30, while the others go on.
        Returns what each has ended as."""
        return asyncio.run(self._close(symbols, in_between))

    async def _close(self, symbols: Sequence[str], in_between: Callable[[], None]) -> list[CloseRequest]:
        asked = 0
        enough = asyncio.Event()

        async def close(client: AsyncClient, symbol: str, after_s: float) -> CloseRequest:
            nonlocal asked
            await asyncio.sleep(after_s)
            request = await client.close(self.ids[symbol], key=f"deploy-{symbol}")
            asked += 1
            if asked == BEFORE_THE_KILL or asked == len(symbols):
                enough.set()
            return await client.wait(request.close_request_id, timeout=CLOSED_WITHIN_S)

        async def meanwhile() -> None:
            await enough.wait()
            await asyncio.to_thread(in_between)

        doors = self.project.doors()
        async with (
            AsyncClient(doors[0], self.token, ca_file=self.authority, retry_for=CLOSED_WITHIN_S) as rest,
            AsyncClient(doors[1], self.token, ca_file=self.authority, retry_for=CLOSED_WITHIN_S) as grpc,
        ):
            closing: list[Awaitable[CloseRequest]] = [
                close((rest, grpc)[n % 2], symbol, n * EVERY_S) for n, symbol in enumerate(symbols)
            ]
            *ended, _ = await asyncio.gather(*closing, meanwhile())
        return [one for one in ended if one is not None]

    def at_broker(self, symbols: Sequence[str]) -> dict[str, list[int]]:
        """By symbol, how often the broker took each of the orders that came for it."""
        orders = self.project.at_broker(
            "[(json.loads(one.bodies[0])['symbol'], one.accepted) for one in control.orders()]"
        )
        return {name: [accepted for symbol, accepted in orders if symbol == name] for name in symbols}

    def held(self, symbols: Sequence[str]) -> dict[str, Decimal]:
        """What the broker still holds of them."""
        left = self.project.at_broker("control.positions()")
        return {name: Decimal(left[name]) for name in symbols if name in left}

    def verify(self) -> str:
        """Every invariant holds, and all of them were looked at."""
        done = self.project.closectl("verify", "--wait", "120", "--json", good=False)
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        return f"verify clean, {len(report)} parts"


def seconds_since(started: float) -> str:
    """For the figures."""
    return f"{time.monotonic() - started:.1f} s"
