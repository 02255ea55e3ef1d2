"""What becomes of claimed sends, on its way into the database: that they begin, and how they were answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from closeflow.clock import sleep
from closeflow.domain.model import Incident, Order, Send
from closeflow.storage.broker_breakers import BreakerRow, save_breaker
from closeflow.storage.core.engine import CommitUnknown, Database, DatabaseError, Transaction, retrying
from closeflow.storage.incidents import report_incidents
from closeflow.storage.order_sends import Answered, begin_sends, record_answers
from order_submitter.sending.grouped import Grouped

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 6
ANSWERS_AT_ONCE: Final = 256
BEGIN_AT_ONCE: Final = 16
"""Few: until the last of them is on the wire, a crash leaves the others in doubt."""
_FIRST_PAUSE_S: Final = 0.1
Claim = tuple[Order, Send]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An answer to a send, with what else has to be written in the same transaction."""

    answered: Answered
    incident: Incident | None = None
    breaker: BreakerRow | None = None
    """Set when the answer moved the circuit breaker."""


class SendLog:
    """Writes in groups. An answer that cannot be written leaves its send open, and its lease ends it."""

    def __init__(self, database: Database, *, broker: str, account_id: str) -> None:
        self._database = database
        self._broker = broker
        self._account_id = account_id
        self._beginning = Grouped(self._begin, most=BEGIN_AT_ONCE)
        self._answered = Grouped(self._write, most=ANSWERS_AT_ONCE)

    async def begin(self, order: Order, send: Send) -> bool:
        """True once it is committed that the first byte of a claimed send may go, and nobody has answered the claim
        before. Whoever finds a claim of which this is not said knows that none went."""
        try:
            return await self._beginning.put((order, send))
        except (DatabaseError, CommitUnknown, OSError) as error:
            log.warning("send_not_begun", client_order_id=order.client_order_id, error=str(error))
            return False

    async def record(self, entry: Entry) -> bool:
        """Returns once the answer is committed: whether there was a claim without an answer for it. Raises
        DatabaseError, CommitUnknown or OSError when it could not be."""
        return await self._answered.put(entry)

    async def _begin(self, claims: Sequence[Claim]) -> list[bool]:
        begun = await retrying(self._database, lambda tx: begin_sends(tx, sends=claims))
        return [(order.client_order_id, send.kind, send.n) in begun for order, send in claims]

    async def _write(self, entries: Sequence[Entry]) -> list[bool]:
        async def work(tx: Transaction) -> list[bool]:
            taken = await record_answers(tx, answers=[entry.answered for entry in entries])
            breakers = [entry.breaker for entry in entries if entry.breaker is not None]
            if breakers:
                await save_breaker(tx, broker=self._broker, account_id=self._account_id, breaker=breakers[-1])
            await report_incidents(tx, incidents=[entry.incident for entry in entries if entry.incident is not None])
            return [(one.client_order_id, one.kind, one.n) in taken for one in (entry.answered for entry in entries)]

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await retrying(self._database, work)
            except (DatabaseError, CommitUnknown, OSError) as error:  # Answers are the same however often written.
                log.warning("answers_not_written", count=len(entries), attempt=attempt, error=str(error))
                if attempt == ATTEMPTS:
                    raise
                await sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")
