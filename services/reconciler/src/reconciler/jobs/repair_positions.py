"""Positions and close requests that disagree: brought in line by legal moves, each with an incident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, assert_never

import structlog

from closeflow.domain.close.repair import InLine, NotRepaired, Repaired, repair
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Book, Event, Incident
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core.engine import (
    Database,
    StatementError,
    Transaction,
    database_now,
    is_poison,
    retrying,
    transaction,
)
from closeflow.storage.incidents import close_incidents, report_incidents
from closeflow.storage.inconsistencies import InconsistentPosition, inconsistent_positions
from closeflow.storage.outbox import insert_events

log = structlog.get_logger(__name__)

RESOLUTION: Final = "position and requests agree"


@dataclass(slots=True)
class RepairPositions:
    """Safe with several replicas: who comes second finds them in line. One that cannot be repaired is reported and
    counted at every cycle, until it can be or is in line; where there are more than the budget, they take turns."""

    database: Database
    grace: timedelta
    budget: int
    _after: int = 0

    async def once(self) -> int:
        """Returns how many positions were repaired."""
        async with transaction(self.database) as tx:
            found = await inconsistent_positions(tx, grace=self.grace, budget=self.budget, after=self._after)
        self._after = found[-1].position_id if found else 0
        repaired = 0
        for misfit in found:
            repaired += await self._repair_alone(misfit)
        async with transaction(self.database) as tx:
            still = await inconsistent_positions(tx, grace=timedelta(), budget=None)
            subjects = [str(one.position_id) for one in still]
            await close_incidents(tx, kind=IncidentKind.NOT_REPAIRED, still=subjects, resolution=RESOLUTION)
        return repaired

    async def _repair_alone(self, misfit: InconsistentPosition) -> bool:
        """One that cannot be written is told, and holds up no other."""
        try:
            return await retrying(self.database, partial(self._repair, misfit=misfit))
        except (StatementError, MoveRefused) as error:
            if isinstance(error, StatementError) and not is_poison(error):
                raise
            log.error("position_not_repaired", position_id=misfit.position_id, exc_info=error)
            async with transaction(self.database) as tx:
                await report_incidents(tx, incidents=[_refused(misfit, error)])
            return False

    async def _repair(self, tx: Transaction, *, misfit: InconsistentPosition) -> bool:
        books = await lock_books(tx, position_ids=[misfit.position_id], request_ids=misfit.request_ids)
        book = books[misfit.position_id]
        verdict = repair(book, now=await database_now(tx))
        match verdict:
            case Repaired(after, events, incident):
                await _save(tx, book, after, events, incident)
                log.warning("position_repaired", position_id=misfit.position_id, detail=incident.detail)
            case NotRepaired(incident):
                await report_incidents(tx, incidents=[incident])
                log.error("position_not_repaired", position_id=misfit.position_id, detail=incident.detail)
            case InLine():
                pass
            case _:
                assert_never(verdict)
        return isinstance(verdict, Repaired)


def _refused(misfit: InconsistentPosition, error: Exception) -> Incident:
    detail = f"the repair cannot be written: {str(error).partition(chr(10))[0]}"
    return about(IncidentKind.NOT_REPAIRED, detail, position_id=misfit.position_id)


async def _save(tx: Transaction, before: Book, after: Book, events: Sequence[Event], incident: Incident) -> None:
    await save_books(tx, changes=[(before, after)])
    await insert_events(tx, events=events)
    await report_incidents(tx, incidents=[incident])
