"""Show who calls, and what stands around the closes of an account: what needs a person, and what is out of order.

What an operator sees of incidents, those see who may read closes, of their own accounts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from close_api.auth.caller import Caller, Scope
from close_api.use_cases.paging import Page, Paging
from close_api.use_cases.reading import answered
from closeflow.domain.model import CloseRequest
from closeflow.domain.operator.lights import Light, lights
from closeflow.domain.operator.waiting import Wait, waiting
from closeflow.storage.close_requests import Engine, Tx
from closeflow.storage.incidents import IncidentRow, page_of_incidents
from closeflow.storage.surroundings import surroundings
from closeflow.storage.waiting_closes import waiting_closes

T = TypeVar("T")

_KEY: Final = 8
_LAST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """Closes that are not over with what each waits for, the oldest first, and the database's time of it."""

    at: datetime
    closes: list[tuple[CloseRequest, Wait]]
    more: bool
    """Whether there are younger ones."""


@dataclass(frozen=True, slots=True)
class Overview:
    """`slot` is the outbox's; `deadline_s` bounds each question to the database. Every method raises Problem:
    `forbidden` and `unavailable`."""

    engine: Engine
    slot: str
    deadline_s: float

    async def incidents(
        self, caller: Caller, *, account: str | None, page_size: int, page_token: str
    ) -> Page[IncidentRow]:
        """The open incidents of the caller's accounts, the newest first; those of no account, too, for who sees all."""
        caller.require(Scope.READ)
        paging = Paging(("open-incidents", account), page_size, page_token)
        below = paging.last(_KEY)
        found = await self._ask(
            lambda tx: page_of_incidents(
                tx,
                accounts=caller.accounts,
                account=account,
                kind=None,
                closed=False,
                below=_LAST if below is None else min(int.from_bytes(below), _LAST),
                limit=paging.size + 1,
            )
        )
        return paging.page(found, lambda one: one.id.to_bytes(_KEY))

    async def waiting(self, caller: Caller, *, account: str | None, request_id: UUID | None, page_size: int) -> Waiting:
        """The oldest closes of the caller's accounts, of one of them, or the one of this id, if it is not over; as many
        as `Paging` makes of the size."""
        caller.require(Scope.READ)
        size, accounts = Paging(("waiting",), page_size, "").size, caller.accounts
        if account is not None:
            accounts = frozenset({account}) if caller.may_see(account) else frozenset()
        found = await self._ask(lambda tx: waiting_closes(tx, accounts=accounts, limit=size + 1, request_id=request_id))
        closes = [(seen.request, waiting(seen)) for seen in found.closes]
        return Waiting(found.now, closes[:size], len(closes) > size)

    async def status(self, caller: Caller) -> tuple[Light, ...]:
        """The lights; of accounts only the caller's."""
        caller.require(Scope.READ)
        return lights(await self._ask(lambda tx: surroundings(tx, slot=self.slot, accounts=caller.accounts)))

    async def _ask(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        return await answered(self.engine, work, deadline_s=self.deadline_s)
