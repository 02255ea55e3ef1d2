"""What closeflow asks of a broker's stream of trade updates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from closeflow.domain.model import BrokerUpdate


class StreamLost(Exception):
    """The stream ended or could not be opened. Whatever was said since the last update has to be asked for."""


class StreamDenied(StreamLost):
    """The broker does not accept the key; trying again helps only once somebody has put that right."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A trade update that could not be read: the broker has to be asked what it said."""

    reason: str


Message = BrokerUpdate | Unreadable

TradeUpdates = Callable[[], AbstractAsyncContextManager[AsyncIterator[Message]]]
"""Opens one subscription. It is entered once the broker has confirmed it; entering and iterating raise StreamLost, and
the iteration never just ends. A connection that died silently is found out: seconds later iterating raises.

Updates come in the broker's order, with a source of `stream`; those of orders that are not ours too. Nothing need be
replayed: what was said before is asked for."""
