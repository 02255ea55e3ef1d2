"""What stands still although nobody says so: consumers that do not consume, and servers that are away.

A consumer that has lost its group, or its process, cannot report that itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog

from closeflow.broker import Broker, BrokerUnavailable
from closeflow.clock import monotonic
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Incident
from closeflow.domain.monitoring import (
    Away,
    Place,
    Waiting,
    away_incidents,
    away_kind,
    beyond_the_end,
    look_at_answer,
    look_at_lag,
    not_seen_to_move,
    stalled_consumers,
)
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.group_lag import group_lag
from closeflow.storage.core.away import reason
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.incidents import close_incidents, close_incidents_about, report_incidents
from closeflow.telemetry.metrics import gauge

T = TypeVar("T")
Lag = Mapping[Place, tuple[int, int]]
"""By group, topic and partition, from where the group would go on, and the end."""

LAG = gauge("closeflow_consumer_lag_records")
STILL_S = gauge("closeflow_consumer_still_seconds")

log = structlog.get_logger(__name__)

ANSWER_WITHIN_S: Final = 5.0
KAFKA, BROKER, DATABASE = "kafka", "broker", "database"


@dataclass(slots=True, kw_only=True)
class WatchSurroundings:
    """The job; `once` is one cycle. `groups` are the consumer groups to watch, each with its topic.

    That the database was away can only be written once it is back: the incident then says for how long.
    """

    database: Database
    broker: Broker
    kafka: KafkaConnection
    groups: Mapping[str, str]
    patience_s: float
    clock: Callable[[], float] = monotonic
    _waiting: Mapping[Place, Waiting] = field(default_factory=dict)
    _away: dict[str, Away | None] = field(default_factory=dict)

    async def once(self) -> int:
        """Returns how many incidents there are now."""
        began = self.clock()
        seen, failure = await self._look_at_lag()
        self._away[KAFKA] = look_at_answer(self._away.get(KAFKA), failure, asked_at=began)
        if seen is not None:
            self._waiting = look_at_lag(self._waiting, seen, now=self.clock())
        self._show(seen)
        self._away[BROKER] = look_at_answer(self._away.get(BROKER), await self._ask_broker(), asked_at=began)
        began = self.clock()
        try:
            return await retrying(self.database, partial(self._write, seen=seen, began=began))
        except Exception as error:
            self._away[DATABASE] = look_at_answer(self._away.get(DATABASE), reason(error), asked_at=began)
            raise

    def _show(self, seen: Lag | None) -> None:
        """Nothing while Kafka does not tell: what was seen before may be over."""
        lag: defaultdict[tuple[str, str], int] = defaultdict(int)
        still_s: defaultdict[tuple[str, str], float] = defaultdict(float)
        for (group, topic, partition), (committed, end) in (seen or {}).items():
            waits = self._waiting.get((group, topic, partition))
            lag[group, topic] += max(0, end - committed)
            still_s[group, topic] = max(still_s[group, topic], self.clock() - waits.since if waits else 0.0)
        LAG.clear()
        STILL_S.clear()
        for place in lag:
            LAG.labels(*place).set(lag[place])
            STILL_S.labels(*place).set(still_s[place])

    async def _write(self, tx: Transaction, *, seen: Lag | None, began: float) -> int:
        await database_now(tx)  # Where the server is frozen under the connection nothing fails, it only takes long.
        now, patience_s = self.clock(), self.patience_s
        database = self._away.get(DATABASE) or Away(since=began, reason="it answered again")
        away = [
            (KAFKA, KAFKA, self._away[KAFKA]),
            (BROKER, self.broker.account_id, self._away[BROKER]),  # Another account's broker may be away meanwhile.
            (DATABASE, DATABASE, database),
        ]
        incidents: list[Incident] = away_incidents(away, now=now, patience_s=patience_s)
        told = {one.kind for one in incidents}
        for name, subject, _ in away:
            if (kind := away_kind(name)) not in told:
                about = {subject, name}  # The name is what a release before this one wrote for the broker.
                await close_incidents_about(tx, kind=kind, subjects=about, resolution="it answers again")
        if seen is not None:
            incidents += beyond_the_end(seen)
            incidents += stalled_consumers(self._waiting, now=now, patience_s=patience_s)
            still_there = not_seen_to_move(self._waiting, now=now, patience_s=patience_s)
            await close_incidents(
                tx, kind=IncidentKind.CONSUMER_STALLED, still=still_there, resolution="the group goes on"
            )
        await report_incidents(tx, incidents=incidents)
        self._away[DATABASE] = None
        return len(incidents)

    async def _look_at_lag(self) -> tuple[Lag | None, str | None]:
        try:
            return await _within(ANSWER_WITHIN_S, group_lag(self.kafka, self.groups)), None
        except LookupError as error:
            log.warning("lag_not_known", reason=reason(error))
            return None, None  # It answers, and has no such topic.
        except Exception as error:
            return None, reason(error)

    async def _ask_broker(self) -> str | None:
        try:
            await _within(ANSWER_WITHIN_S, self.broker.clock())
        except BrokerUnavailable as error:
            return None if error.retry_after_s is not None else error.reason  # Asking for a pause is an answer.
        except TimeoutError as error:
            return reason(error)
        return None


async def _within(seconds: float, question: Awaitable[T]) -> T:
    """Its answer, or TimeoutError, whatever it makes of being cancelled."""
    asked = asyncio.ensure_future(question)
    done, _ = await asyncio.wait({asked}, timeout=seconds)
    if not done:
        asked.cancel()
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return asked.result()
