"""Show what is: one request or position, pages of them, what happened to a request, and its next change.

Whose a row is, is part of every question, so what is not there and what is not the caller's are one answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from close_api.auth.caller import Caller, Scope
from close_api.errors import Code, FieldError, Problem, field_problem
from close_api.use_cases.paging import Page, Paging
from close_api.use_cases.watching import Watchers, event_id
from closeflow.clock import timeout
from closeflow.domain.model import Position, PositionStatus, RequestStatus
from closeflow.domain.text import time_text
from closeflow.storage.close_lists import LAST_REQUEST, list_positions, list_requests
from closeflow.storage.close_requests import (
    DatabaseAway,
    Engine,
    LockedElsewhere,
    RequestState,
    RowRefused,
    Tx,
    find_position,
    find_request,
    find_requests,
    transact,
)
from closeflow.storage.core.engine import CommitUnknown
from closeflow.storage.timeline import list_facts

T = TypeVar("T")
Changes = AsyncGenerator["Changed | None", None]

KEEP_ALIVE_S: Final = 15.0
MAX_WATCHERS: Final = 1000
MAX_WAIT_S: Final = 60
"""The longest `wait` that a door takes."""
_MAX_ID: Final = 2**63 - 1
_REQUEST_KEY: Final = 16
_POSITION_KEY: Final = 8
_LONGEST_NAME: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which close requests; None leaves a condition out. `created_after` has an offset."""

    account: str | None = None
    status: RequestStatus | None = None
    position_id: int | None = None
    created_after: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionFilter:
    """Which positions; None leaves a condition out."""

    account: str | None = None
    status: PositionStatus | None = None
    symbol: str | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened to a request: `source` is the table that keeps it; of `detail` the numbers are ints and
    Decimals."""

    at: datetime
    source: str
    what: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A request as it is now, and all that is known to have happened to it, in the order of time."""

    state: RequestState
    facts: list[Fact]


@dataclass(frozen=True, slots=True)
class Changed:
    """A state that is new to who watches; `event_id` resumes behind it, in any process."""

    event_id: str
    state: RequestState


@dataclass(slots=True)
class Reading:
    """`deadline_s` bounds each question to the database. Every method raises Problem: `forbidden`, `unavailable`, and
    `not_found` for what is not there or not the caller's."""

    engine: Engine
    deadline_s: float
    max_watchers: int = MAX_WATCHERS
    keep_alive_s: float = KEEP_ALIVE_S
    _watchers: Watchers = field(init=False)

    def __post_init__(self) -> None:
        self._watchers = Watchers(self._states, at_most=self.max_watchers)

    async def request(self, caller: Caller, request_id: UUID) -> RequestState:
        """The request and its position now."""
        caller.require(Scope.READ)
        return _there(await self._ask(lambda tx: find_request(tx, request_id=request_id, accounts=caller.accounts)))

    async def wait(self, caller: Caller, request_id: UUID, *, wait_s: float) -> RequestState:
        """The state at its next change; at once when it is final; after `wait_s` seconds as it is then. Raises Problem
        `overloaded` when too many wait already."""
        state = await self.request(caller, request_id)
        if not state[0].unfinished or wait_s <= 0:
            return state
        with self._watchers.watching(request_id, subject=caller.subject, seen=event_id(state)) as watch:
            changed = await watch.changed(within_s=wait_s)
        return changed or await self.request(caller, request_id)

    def watch(self, caller: Caller, request_id: UUID, *, last_event_id: str | None) -> Changes:
        """The state now, unless it is the one that `last_event_id` names, then each that follows, the final one last.
        Some in between may be skipped; None says that nothing changed for `keep_alive_s`.

        Raises Problem `overloaded` here or, like what `request` raises, from the first step.
        """
        self._watchers.refuse_if_full(caller.subject)
        return self._watch(caller, request_id, last_event_id)

    async def _watch(self, caller: Caller, request_id: UUID, last_event_id: str | None) -> Changes:
        state = await self.request(caller, request_id)
        seen = event_id(state)
        with self._watchers.watching(request_id, subject=caller.subject, seen=seen) as watch:
            if seen != last_event_id:
                yield Changed(seen, state)
            while state[0].unfinished:
                changed = await watch.changed(within_s=self.keep_alive_s)
                if changed is not None:
                    state = changed
                yield None if changed is None else Changed(event_id(changed), changed)

    async def requests(
        self, caller: Caller, filter: RequestFilter, *, page_size: int, page_token: str
    ) -> Page[RequestState]:
        """Close requests, the newest first; see `Paging` for the size and the token."""
        caller.require(Scope.READ)
        _check_names(account=filter.account)
        after = None if filter.created_after is None else time_text(filter.created_after)
        position = None if filter.position_id is None else str(filter.position_id)
        paging = Paging(("close-requests", filter.account, filter.status, position, after), page_size, page_token)
        before = paging.last(_REQUEST_KEY)
        if filter.position_id is not None and not 1 <= filter.position_id <= _MAX_ID:
            return Page([], "")
        found = await self._ask(
            lambda tx: list_requests(
                tx,
                accounts=caller.accounts,
                account=filter.account,
                status=filter.status,
                position_id=filter.position_id,
                created_after=filter.created_after,
                before=LAST_REQUEST if before is None else UUID(bytes=before),
                limit=paging.size + 1,
            )
        )
        return paging.page(found, lambda state: state[0].id.bytes)

    async def timeline(self, caller: Caller, request_id: UUID) -> Timeline:
        """All that happened to the request."""
        caller.require(Scope.READ)

        async def work(tx: Tx) -> Timeline | None:
            state = await find_request(tx, request_id=request_id, accounts=caller.accounts)
            if state is None:
                return None
            rows = await list_facts(tx, request=state[0])
            return Timeline(state, [Fact(row["at"], row["source"], row["what"], row["detail"]) for row in rows])

        return _there(await self._ask(work))

    async def position(self, caller: Caller, position_id: int) -> Position:
        """The position now."""
        caller.require(Scope.READ)
        if not 1 <= position_id <= _MAX_ID:
            raise Problem(Code.NOT_FOUND)
        return _there(await self._ask(lambda tx: find_position(tx, position_id=position_id, accounts=caller.accounts)))

    async def positions(
        self, caller: Caller, filter: PositionFilter, *, page_size: int, page_token: str
    ) -> Page[Position]:
        """Positions, ids ascending; see `Paging` for the size and the token."""
        caller.require(Scope.READ)
        _check_names(account=filter.account, symbol=filter.symbol)
        paging = Paging(("positions", filter.account, filter.status, filter.symbol), page_size, page_token)
        after = paging.last(_POSITION_KEY)
        found = await self._ask(
            lambda tx: list_positions(
                tx,
                accounts=caller.accounts,
                account=filter.account,
                status=filter.status,
                symbol=filter.symbol,
                after=0 if after is None else min(int.from_bytes(after), _MAX_ID),
                limit=paging.size + 1,
            )
        )
        return paging.page(found, lambda position: position.id.to_bytes(_POSITION_KEY))

    async def _states(self, request_ids: Collection[UUID]) -> Mapping[UUID, RequestState]:
        return await self._ask(lambda tx: find_requests(tx, request_ids=request_ids))

    async def _ask(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        return await answered(self.engine, work, deadline_s=self.deadline_s)


async def answered(engine: Engine, work: Callable[[Tx], Awaitable[T]], *, deadline_s: float) -> T:
    """The outcome of a transaction that may be repeated; raises Problem `unavailable` when there is none in time."""
    try:
        async with timeout(deadline_s):
            return await transact(engine, work)
    except (DatabaseAway, CommitUnknown, LockedElsewhere, RowRefused, TimeoutError):
        raise Problem(Code.UNAVAILABLE) from None


def _there(found: T | None) -> T:
    if found is None:
        raise Problem(Code.NOT_FOUND)
    return found


def _check_names(**given: str | None) -> None:
    wrong = [name for name, value in given.items() if value is not None and not _is_name(value)]
    if wrong:
        raise field_problem(*(FieldError(name, f"must be 1 to {_LONGEST_NAME} printable characters") for name in wrong))


def _is_name(value: str) -> bool:
    return 1 <= len(value) <= _LONGEST_NAME and value.isprintable()
