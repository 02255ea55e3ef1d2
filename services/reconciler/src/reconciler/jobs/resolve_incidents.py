"""Close incidents whose facts are over."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.incidents import resolve_incidents

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ResolveIncidents:
    """Close incidents that are over by themselves; see `closeflow.storage.incidents` for which, and when."""

    database: Database

    async def once(self) -> int:
        """Returns how many were closed."""
        async with transaction(self.database) as tx:
            resolved = await resolve_incidents(tx)
        for one in resolved:
            log.info("incident_resolved", incident=one.incident_id, kind=one.kind, subject=one.subject)
        return len(resolved)
