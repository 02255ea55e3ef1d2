"""Answers to sends on their way into the database: what waits while one transaction commits goes into the next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from closeflow.domain.model import Incident
from closeflow.storage.engine import CommitUnknown, Database, DatabaseError, Transaction, retrying
from closeflow.storage.saving import report_incidents
from closeflow.storage.submitting import Answered, BreakerRow, record_answers, save_breaker

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 6
_FIRST_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    answered: Answered
    incident: Incident | None = None
    breaker: BreakerRow | None = None
    """Set when the answer moved the circuit breaker."""


class AnswerLog:
    """Writes answers in groups. An answer that cannot be written leaves its send open, and its lease ends it."""

    def __init__(self, database: Database, *, broker: str, account_id: str) -> None:
        self._database = database
        self._broker = broker
        self._account_id = account_id
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, entry: Entry) -> None:
        """Returns once the answer is committed; raises DatabaseError or OSError when it could not be."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            error = await self._write([entry for entry, _ in group])
            for _, done in group:
                if done.cancelled():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    async def _write(self, entries: list[Entry]) -> Exception | None:
        async def work(tx: Transaction) -> None:
            await record_answers(tx, answers=[entry.answered for entry in entries])
            breakers = [entry.breaker for entry in entries if entry.breaker is not None]
            if breakers:
                await save_breaker(tx, broker=self._broker, account_id=self._account_id, breaker=breakers[-1])
            await report_incidents(tx, incidents=[entry.incident for entry in entries if entry.incident is not None])

        failure: Exception | None = None
        for attempt in range(ATTEMPTS):
            try:
                await retrying(self._database, work)
            except (DatabaseError, CommitUnknown, OSError) as error:  # Answers are the same however often written.
                log.warning("answers_not_written", count=len(entries), attempt=attempt + 1, error=str(error))
                failure = error
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
            else:
                return None
        return failure
