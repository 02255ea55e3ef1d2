"""Refusals in words that are not in the adapter's table: of one order, or of every order of the account?

A table cannot know every way in which a broker says that an account may not trade now. Several closes refused in the
same words within seconds may say it too; then these wait, and all others are sent: it may be a kind of order after all.
One that is refused again and again in the same words, while orders pass, is refused itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from closeflow.clock import monotonic, timeout
from closeflow.domain.model import Order
from closeflow.domain.sending.broker_answers import NotAccepted, Refused

SEVERAL: Final = 3
WITHIN_S: Final = 10.0
COMPANY_S: Final = 2.0
"""How long a refusal waits for others like it before it is believed to be of its order alone."""
WAITS_AT_MOST: Final = 3
"""How often an order is refused like others, with orders taken in between, before it is its own fault."""
LATELY_S: Final = 120.0
"""Longer than an order waits between its tries: words not heard for so long are of the account no more."""


@dataclass(slots=True)
class _Words:
    heard_at: float
    closes: dict[UUID, float] = field(default_factory=dict)
    """When each close was last refused in them."""
    of_the_account: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class UnmappedRefusals:
    """Of one account, as this process hears them."""

    company_s: float = COMPANY_S
    clock: Callable[[], float] = monotonic
    _words: dict[str, _Words] = field(default_factory=dict)
    _taken: int = 0
    _waits: dict[UUID, dict[int, None]] = field(default_factory=dict)
    """After how many orders taken each close was made to wait."""

    def taken(self) -> None:
        """The broker took an order: the account may trade."""
        if self._words:
            self._taken += 1
            self._words.clear()
        else:
            self._waits.clear()

    async def judge(self, order: Order, refused: Refused) -> Refused | NotAccepted:
        """The refusal as it came, or as one of the account where several closes heard the same words of late."""
        now = self.clock()
        words = self._words.get(refused.reason)
        if words is None or now - words.heard_at > LATELY_S:
            words = self._words[refused.reason] = _Words(now)
        words.heard_at = now
        words.closes[order.close_request_id] = now
        words.closes = {close: at for close, at in words.closes.items() if now - at < WITHIN_S}
        if len(words.closes) >= SEVERAL:
            words.of_the_account.set()
        try:
            async with timeout(self.company_s):
                await words.of_the_account.wait()
        except TimeoutError:
            return refused
        waits = self._waits.setdefault(order.close_request_id, {})
        waits[self._taken] = None
        if len(waits) > WAITS_AT_MOST:
            del self._waits[order.close_request_id]
            return refused
        return NotAccepted(refused.reason, None, account_wide=True)
