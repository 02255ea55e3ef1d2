"""Counts what is not over, for the metrics: closes by what they wait for, incidents, parked records, breakers.

Every replica does so: all show the same, and each says when it looked last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from closeflow.clock import utc_now
from closeflow.storage.backlog import Backlog, Waiting, read_backlog
from closeflow.storage.core.engine import Database, retrying
from closeflow.telemetry.metrics import gauge

CLOSES = gauge("closeflow_closes")
OLDEST_S = gauge("closeflow_oldest_close_seconds")
INCIDENTS = gauge("closeflow_incidents_open")
PARKED = gauge("closeflow_parked_records")
BREAKER_OPEN = gauge("closeflow_broker_breaker_open")
MEASURED_AT = gauge("closeflow_backlog_measured_timestamp_seconds")

NONE: Final = Waiting(0, 0.0)
ALWAYS: Final = (
    *(("pending", one) for one in ("plan", "quote", "broker", "market_closed", "trading_halted", "person")),
    *(("submitted", one) for one in ("fill", "unknown_outcome", "person")),
    *(("retryable", one) for one in ("retry", "quote", "broker", "market_closed", "trading_halted", "person")),
)
"""Shown also when there are none, so that a graph falls to 0."""


@dataclass(frozen=True, slots=True)
class MeasureBacklog:
    """The job; `once` is one cycle."""

    database: Database

    async def once(self) -> int:
        """Nothing is repaired by it: 0."""
        _show(await retrying(self.database, read_backlog))
        return 0


def _show(found: Backlog) -> None:
    """All at once, between two scrapes: what is over disappears."""
    for one in (CLOSES, OLDEST_S, INCIDENTS, PARKED, BREAKER_OPEN):
        one.clear()
    for place, waiting in (dict.fromkeys(ALWAYS, NONE) | dict(found.closes)).items():
        CLOSES.labels(*place).set(waiting.count)
        OLDEST_S.labels(*place).set(waiting.oldest_s)
    for kind, count in found.incidents.items():
        INCIDENTS.labels(*kind).set(count)
    for topic, count in found.parked.items():
        PARKED.labels(topic).set(count)
    for account, is_open in found.open_breakers.items():
        BREAKER_OPEN.labels(account).set(is_open)
    MEASURED_AT.set(utc_now().timestamp())
