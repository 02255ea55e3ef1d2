"""Closes positions over REST at a steady rate, as a careful caller does, and keeps what it was answered."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import httpx

GIVE_UP_S: Final = 300.0
"""How long one close is repeated with its key before it counts as not taken."""
PAUSE_S: Final = 0.5
CALL_S: Final = 15.0


@dataclass(slots=True)
class Phase:
    """What callers met while one thing was done to the cluster."""

    name: str
    begun: float
    ended: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def line(self) -> str:
        """One line for people."""
        times = sorted(self.latencies) or [0.0]
        found = ", ".join(f"{count} × {answer}" for answer, count in sorted(self.answers.items()))
        middle, late = times[len(times) // 2], times[int(len(times) * 0.99)]
        return f"{self.name}: {self.ended - self.begun:.0f} s; {found}; accepted after {middle:.2f} s, p99 {late:.2f} s"


@dataclass(slots=True)
class Load:
    """`positions` are closed one after the other. `bad` are answers that no caller should see: a 5xx that is not a 503
    with Retry-After, and closes that were not taken within GIVE_UP_S."""

    url: str
    token: Callable[[], str]
    tls: ssl.SSLContext
    positions: Iterator[int]
    per_second: float
    accepted: dict[int, str] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=lambda: [Phase("before", time.monotonic())])
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def phase(self, name: str) -> None:
        """What follows counts for this."""
        now = time.monotonic()
        self.phases[-1].ended = now
        self.phases.append(Phase(name, now))

    async def run(self, stop: asyncio.Event) -> None:
        """Open loop: a call that waits keeps no other from being made."""
        begun, sent = time.monotonic(), 0
        while not stop.is_set():
            task = asyncio.create_task(self._close(next(self.positions)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            sent += 1
            await asyncio.sleep(max(0.0, begun + sent / self.per_second - time.monotonic()))
        await asyncio.gather(*self._running)
        self.phases[-1].ended = time.monotonic()

    async def _close(self, position: int) -> None:
        begun = time.monotonic()
        while time.monotonic() < begun + GIVE_UP_S:
            if await self._try(position, begun):
                return
            await asyncio.sleep(PAUSE_S)
        self.bad.append(f"position {position}: not accepted within {GIVE_UP_S:.0f} s")

    async def _try(self, position: int, begun: float) -> bool:
        """Whether there is nothing more to do for it. Each call has a connection of its own, so that it goes to
        whichever pod is in the Service then."""
        phase = self.phases[-1]
        headers = {"Authorization": f"Bearer {self.token()}", "Idempotency-Key": f"load-{position}"}
        try:
            async with httpx.AsyncClient(verify=self.tls, timeout=CALL_S) as http:
                answer = await http.post(f"{self.url}/v1/positions/{position}/close", headers=headers)
        except httpx.TransportError as error:
            phase.answers[type(error).__name__] += 1
            return False
        code = answer.status_code
        again = "Retry-After" in answer.headers
        phase.answers[f"{code}{' with Retry-After' if again else ''}"] += 1
        if code in (200, 201):
            self.accepted[position] = str(answer.json()["close_request_id"])
            phase.latencies.append(time.monotonic() - begun)
            return True
        if code >= 500 and not (code == 503 and again):
            self.bad.append(f"position {position}: {code} {answer.text[:200]}")
        if code < 500 and not again:
            self.bad.append(f"position {position}: {code} {answer.text[:200]}")
            return True
        return False
