"""The exchanges with close-api, as values: what is asked, and how its answer is read. How each travels over REST and
over gRPC is said by the transports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from closeflow_client.close import (
    MAX_INT,
    Close,
    check_position_id,
    check_request_id,
    check_text,
    check_time,
    check_whole,
)
from closeflow_client.errors import AnswerUnreadable, CloseflowError
from closeflow_client.keys import new_key
from closeflow_client.retry import Unanswered
from closeflow_client.values import (
    ClosePlan,
    CloseRequest,
    Page,
    Position,
    Values,
    read_close_plan,
    read_close_request,
    read_page,
    read_position,
)

Result = TypeVar("Result")
Item = TypeVar("Item")
Outcome = CloseRequest | CloseflowError
"""What became of one close of many."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The server did what was asked. `values` are the members of its answer, by the names that REST gives them."""

    values: Values
    replayed: bool = False
    status: int | str | None = field(default=None, compare=False)
    trace_id: str | None = field(default=None, compare=False)


Reply = Answered | CloseflowError | Unanswered
"""How one attempt ended."""


class Call(ABC, Generic[Result]):
    """One exchange. `unknown` is what an error says of a call that writes and got no answer; empty for a question."""

    unknown: ClassVar[str] = ""

    @abstractmethod
    def read(self, answer: Answered) -> Result:
        """What the caller gets. Raises AnswerUnreadable."""

    @property
    def key(self) -> str | None:
        """The idempotency key, where it has one."""
        return None

    @property
    def waits_s(self) -> float:
        """How long the server may take on purpose."""
        return 0.0


@dataclass(frozen=True)
class ClosePosition(Call[CloseRequest]):
    """Close one position; the close has a key."""

    close: Close
    unknown: ClassVar[str] = "whether the close was accepted is unknown; the same call with the same key finds it"

    def read(self, answer: Answered) -> CloseRequest:
        """The accepted close."""
        return read_close_request(answer.values, key=self.close.key, replayed=answer.replayed)

    @property
    def key(self) -> str | None:
        """The close's."""
        return self.close.key


@dataclass(frozen=True)
class PlanClose(Call[ClosePlan]):
    """What a close would do; nothing is kept and nothing sent."""

    close: Close

    def read(self, answer: Answered) -> ClosePlan:
        """The order that would be planned."""
        return read_close_plan(answer.values)


@dataclass(frozen=True)
class CloseMany(Call[Sequence[Outcome]]):
    """Close up to 500 positions, each by itself; each close has a key."""

    closes: tuple[Close, ...]
    unknown: ClassVar[str] = ClosePosition.unknown

    def read(self, answer: Answered) -> Sequence[Outcome]:
        """One outcome for each close, in order: an error is returned, not raised."""
        results = answer.values.get("results")
        if not isinstance(results, list) or len(results) != len(self.closes):
            raise AnswerUnreadable(f"the answer has not {len(self.closes)} results, one for each close")
        return [_outcome(close, one) for close, one in zip(self.closes, results, strict=True)]


@dataclass(frozen=True)
class GetCloseRequest(Call[CloseRequest]):
    """A close request now, or at its next change within `wait_s` whole seconds."""

    request_id: UUID
    wait_s: int = 0

    def read(self, answer: Answered) -> CloseRequest:
        """The close request."""
        return read_close_request(answer.values)

    @property
    def waits_s(self) -> float:
        """The wait for the change."""
        return self.wait_s


@dataclass(frozen=True)
class CancelCloseRequest(Call[CloseRequest]):
    """Stop a close."""

    request_id: UUID
    reason: str | None
    unknown: ClassVar[str] = "whether the cancel was taken is unknown; it may be repeated, or the close request read"

    def read(self, answer: Answered) -> CloseRequest:
        """The close request after that."""
        return read_close_request(answer.values)


@dataclass(frozen=True)
class GetPosition(Call[Position]):
    """A position now."""

    position_id: int

    def read(self, answer: Answered) -> Position:
        """The position."""
        return read_position(answer.values)


class ListCall(Call[Page[Item]]):
    """A call for one page of a list."""

    page_size: int
    page_token: str

    @abstractmethod
    def at(self, page_token: str) -> ListCall[Item]:
        """The same for another page."""


@dataclass(frozen=True)
class ListCloseRequests(ListCall[CloseRequest]):
    """A page of close requests, the newest first."""

    account: str | None = None
    status: str | None = None
    position_id: int | None = None
    created_after: datetime | None = None
    page_size: int = 0
    page_token: str = ""

    def read(self, answer: Answered) -> Page[CloseRequest]:
        """The page."""
        return read_page(answer.values, "close_requests", read_close_request)

    def at(self, page_token: str) -> ListCloseRequests:
        """The same for another page."""
        return replace(self, page_token=page_token)


@dataclass(frozen=True)
class ListPositions(ListCall[Position]):
    """A page of positions, by id."""

    account: str | None = None
    status: str | None = None
    symbol: str | None = None
    page_size: int = 0
    page_token: str = ""

    def read(self, answer: Answered) -> Page[Position]:
        """The page."""
        return read_page(answer.values, "positions", read_position)

    def at(self, page_token: str) -> ListPositions:
        """The same for another page."""
        return replace(self, page_token=page_token)


def close_call(close: Close) -> ClosePosition:
    """Under the close's key, or a new one."""
    return ClosePosition(close if close.key is not None else close.with_key(new_key()))


def plan_call(close: Close) -> PlanClose:
    """Raises ValueError for a close with a key: under one that was used, the answer would be that close."""
    if close.key is not None:
        raise ValueError("a dry run keeps nothing, so it takes no key")
    return PlanClose(close.with_key(new_key()))


def cancel_call(request_id: UUID | str, reason: str | None) -> CancelCloseRequest:
    """Raises TypeError or ValueError for what cannot be sent, as all of these do."""
    return CancelCloseRequest(check_request_id(request_id), None if reason is None else check_text("reason", reason))


def close_requests_call(
    account: str | None, status: str | None, position_id: int | None, created_after: datetime | None, page_size: int
) -> ListCloseRequests:
    """The first page."""
    _check_texts(account=account, status=status)
    if position_id is not None:
        check_position_id(position_id)
    if created_after is not None:
        check_time("created_after", created_after)
    check_whole("page_size", page_size, MAX_INT)
    return ListCloseRequests(account, status, position_id, created_after, page_size)


def positions_call(account: str | None, status: str | None, symbol: str | None, page_size: int) -> ListPositions:
    """The first page."""
    _check_texts(account=account, status=status, symbol=symbol)
    check_whole("page_size", page_size, MAX_INT)
    return ListPositions(account, status, symbol, page_size)


def _check_texts(**given: str | None) -> None:
    for name, value in given.items():
        if value is not None:
            check_text(name, value)


@dataclass(frozen=True, slots=True)
class Change:
    """A state of a watched close request; `event_id` is where a watch goes on after it."""

    event_id: str
    values: Values


def _outcome(close: Close, result: Mapping[str, Any] | CloseflowError) -> Outcome:
    """A transport gives an error as the exception."""
    if isinstance(result, CloseflowError):
        result.key = close.key
        return result
    values = result.get("close_request") if isinstance(result, Mapping) else None
    if not isinstance(values, Mapping):
        raise AnswerUnreadable("a result of the answer has neither a close_request nor an error")
    return read_close_request(values, key=close.key, replayed=result.get("replayed") is True)
