"""What a transport does for the clients: one attempt at a time. It repeats nothing by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from importlib.metadata import version
from typing import Any, Final, Protocol
from uuid import UUID

from closeflow_client.calls import Call, Change, Reply
from closeflow_client.retry import Failure

USER_AGENT: Final = f"closeflow-client/{version('closeflow-client')}"


class Broken(Exception):
    """A watched stream failed so."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Transport(Protocol):
    """For threads."""

    def send(self, call: Call[Any], authorization: str | None, timeout_s: float) -> Reply:
        """Make one attempt; whatever comes of it is a Reply."""

    def watch(
        self, request_id: UUID, last_event_id: str | None, authorization: str | None
    ) -> Generator[Change | None, None, None]:
        """States as they come, None for a sign of life; ends where the server ends it. Raises Broken."""

    def close(self) -> None:
        """End its connections."""


class AsyncTransport(Protocol):
    """The same in one event loop."""

    async def send(self, call: Call[Any], authorization: str | None, timeout_s: float) -> Reply:
        """Make one attempt; whatever comes of it is a Reply."""

    def watch(
        self, request_id: UUID, last_event_id: str | None, authorization: str | None
    ) -> AsyncGenerator[Change | None, None]:
        """States as they come, None for a sign of life; ends where the server ends it. Raises Broken."""

    async def close(self) -> None:
        """End its connections."""
