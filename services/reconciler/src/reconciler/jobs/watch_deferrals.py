"""Closes that stand still: a person is told of each kind once, after minutes, and it is closed when it is over."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from closeflow.domain.incidents import WARNING
from closeflow.domain.model import Incident
from closeflow.storage.core.engine import Database, Transaction, retrying
from closeflow.storage.deferred_closes import DeferredClose, untold_deferrals
from closeflow.storage.incidents import report_incidents

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchDeferrals:
    """Safe with several replicas: an incident that both open is one."""

    database: Database

    async def once(self) -> int:
        """Returns how many incidents were opened."""
        opened = await retrying(self.database, self._tell)
        for one in opened:
            log.warning("closes_stand_still", kind=one.kind, subject=one.subject, count=one.count)
        return len(opened)

    async def _tell(self, tx: Transaction) -> list[DeferredClose]:
        untold = await untold_deferrals(tx)
        await report_incidents(tx, incidents=[_incident(one) for one in untold])
        return untold


def _incident(one: DeferredClose) -> Incident:
    since = one.since.isoformat(timespec="seconds")
    what = "it" if one.close_request_id is not None else f"{one.count} of account {one.account_id}"
    return Incident(
        kind=one.kind,
        severity=WARNING,
        detail=f"{what} cannot go on since {since}; tried again by itself, ever more rarely",
        subject=one.account_id,
        position_id=one.position_id,
        close_request_id=one.close_request_id,
    )
