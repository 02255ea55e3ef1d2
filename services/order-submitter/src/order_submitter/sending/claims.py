"""What becomes of the sends that a transaction claims when it commits, when it does not, and when nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from closeflow.domain.batch import BatchResult
from closeflow.domain.model import Order, SendKind
from closeflow.storage.core.engine import CommitUnknown
from order_submitter.sending.pool import Job, SenderPool


@dataclass(slots=True)
class Claims:
    """The sends that one transaction claims: started once it has committed, marked as not sent when it may have.

    It gives them their turns (`closeflow.domain.sending.claim.Turns`), which go back if they are not claimed after all.
    """

    pool: SenderPool
    reserved: int = 0
    jobs: list[Job] = field(default_factory=list)
    """Set when nothing but the COMMIT is left to do: the claims may be in the database from then on."""
    spans: Mapping[UUID, str] = field(default_factory=dict)
    """By close request, the span that its send belongs to, if that is not the call which asked for the close."""

    def anew(self) -> None:
        """To be called as the transaction begins, also when it is done again."""
        self.pool.release(self.reserved)
        self.reserved = 0
        self.jobs.clear()

    def written(self, result: BatchResult, *, checked_at: float) -> None:
        """To be called when nothing but the COMMIT is left to do. `checked_at` is the monotonic time from after the
        books were locked and before the controls were read: a halt that was not seen committed later than that."""
        self.jobs = [
            Job(order=order, send=send, checked_at=checked_at, traceparent=self._traceparent(result, order))
            for order, send in result.claimed
        ]

    def _traceparent(self, result: BatchResult, order: Order) -> str | None:
        book = result.books.get(order.position_id)
        request = book.requests.get(order.close_request_id) if book is not None else None
        return self.spans.get(order.close_request_id) or (request.traceparent if request is not None else None)

    def reserve(self, kind: SendKind) -> bool:
        """A turn of the pool, given back unless the transaction commits."""
        taken = self.pool.reserve(kind)
        self.reserved += taken
        return taken

    @property
    def probing(self) -> bool:
        """As of the pool."""
        return self.pool.probing

    def wait_s(self, kind: SendKind, *, ahead: int) -> float:
        """As of the pool."""
        return self.pool.wait_s(kind, ahead=ahead)

    def plans_resume_in_s(self) -> float | None:
        """As of the pool."""
        return self.pool.plans_resume_in_s()


@asynccontextmanager
async def claiming(pool: SenderPool) -> AsyncIterator[Claims]:
    """Around a transaction that claims sends."""
    claims = Claims(pool)
    try:
        yield claims
    except CommitUnknown:
        pool.mark_not_sent(claims.jobs, "commit_unknown")
        raise
    except asyncio.CancelledError:
        if claims.jobs:
            pool.mark_not_sent(claims.jobs, "canceled")
        else:
            pool.release(claims.reserved)
        raise
    except BaseException:
        pool.release(claims.reserved)
        raise
    pool.start(claims.jobs)
