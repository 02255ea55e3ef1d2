"""Read what one frame of `closectl top` shows, in one snapshot of the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from closeflow.domain.enums import RequestStatus
from closeflow.domain.model import CloseRequest
from closeflow.domain.operator.lights import Light, lights
from closeflow.domain.operator.waiting import Wait, waiting
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.due_work import sending_of_accounts
from closeflow.storage.incidents import IncidentRow, page_of_incidents
from closeflow.storage.surroundings import surroundings
from closeflow.storage.waiting_closes import StateCount, count_closes, waiting_closes

LOOKED_AT: Final = 10_000
"""Closes that are not over; of more, the oldest."""
INCIDENTS: Final = 1_000
_ABOVE_ALL: Final = 2**63 - 1


class UnknownAccounts(Exception):
    """Some of the accounts asked for are not there; the text names those that are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is seen at one moment of the database's clock."""

    at: datetime
    counts: Mapping[RequestStatus, StateCount]
    stuck: list[tuple[CloseRequest, Wait]]
    """The one that waits the longest first."""
    incidents: list[IncidentRow]
    lights: tuple[Light, ...]


async def read_frame(database: Database, *, slot: str, accounts: Collection[str] | None) -> Frame:
    """Of these accounts, None being all; `slot` is that of the outbox. Raises UnknownAccounts."""
    async with transaction(database) as tx:
        known = await sending_of_accounts(tx)
        _require(accounts, known)
        found = await waiting_closes(tx, accounts=accounts, limit=LOOKED_AT)
        waits = [(seen.request, waiting(seen)) for seen in found.closes]
        stuck = [one for one in waits if one[1].stuck_from <= found.now]
        return Frame(
            at=found.now,
            counts=await count_closes(tx, accounts=accounts),
            stuck=sorted(stuck, key=lambda one: one[1].since),
            incidents=await page_of_incidents(
                tx, accounts=accounts, account=None, kind=None, closed=False, below=_ABOVE_ALL, limit=INCIDENTS
            ),
            lights=lights(await surroundings(tx, slot=slot, accounts=accounts)),
        )


def _require(accounts: Collection[str] | None, known: Collection[str]) -> None:
    missing = sorted(set(accounts or ()) - set(known))
    if missing:
        there = ", ".join(sorted(known)) or "none"
        raise UnknownAccounts(f"there is no account {', '.join(missing)}; there are: {there}")
