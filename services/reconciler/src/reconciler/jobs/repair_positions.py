"""Positions and close requests that disagree: brought in line by legal moves, each with an incident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from closeflow.domain.batch import BatchResult
from closeflow.domain.close.repair import repair_batch
from closeflow.domain.incidents import IncidentKind, about
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import Database, StatementError, Transaction, database_now, retrying, transaction
from closeflow.storage.incidents import close_incidents, report_incidents
from closeflow.storage.inconsistencies import InconsistentPosition, inconsistent_positions
from closeflow.unit_of_work import MoveRefused, apart_where_one_breaks, first_line, save

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
        repaired = (
            await apart_where_one_breaks(found, self._repair, alone=self._report, also_locked=True) if found else []
        )
        async with transaction(self.database) as tx:
            still = await inconsistent_positions(tx, grace=timedelta(), budget=None)
            subjects = [str(one.position_id) for one in still]
            await close_incidents(tx, kind=IncidentKind.NOT_REPAIRED, still=subjects, resolution=RESOLUTION)
        return sum(repaired)

    async def _repair(self, found: Sequence[InconsistentPosition]) -> int:
        async def work(tx: Transaction) -> BatchResult:
            ids, named = [one.position_id for one in found], [name for one in found for name in one.request_ids]
            books = await lock_books(tx, position_ids=ids, request_ids=named)
            result = repair_batch(books, ids, now=await database_now(tx))
            await save(tx, result)
            return result

        result = await retrying(self.database, work)
        for one in result.incidents:
            if one.kind == IncidentKind.REPAIRED:
                log.warning("position_repaired", position_id=one.position_id, detail=one.detail)
            else:
                log.error("position_not_repaired", position_id=one.position_id, detail=one.detail)
        return len(result.changes)

    async def _report(self, found: InconsistentPosition, error: StatementError | MoveRefused) -> int:
        log.error("position_not_repaired", position_id=found.position_id, exc_info=error)
        detail = f"the repair cannot be written: {first_line(error)}"
        async with transaction(self.database) as tx:
            incident = about(IncidentKind.NOT_REPAIRED, detail, position_id=found.position_id)
            await report_incidents(tx, incidents=[incident])
        return 0
