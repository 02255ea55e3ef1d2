"""What becomes of the sends that a transaction claims when it commits, when it does not, and when nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from closeflow.storage.core.engine import CommitUnknown
from order_submitter.sending.pool import Job, SenderPool


@dataclass(slots=True)
class Claims:
    """The sends that one transaction claims: started once it has committed, disowned when it may have."""

    pool: SenderPool
    jobs: list[Job] = field(default_factory=list)
    may_be_there: bool = False

    def anew(self) -> None:
        """To be called as the transaction begins, also when it is done again."""
        self.pool.release(len(self.jobs))
        self.jobs.clear()
        self.may_be_there = False

    def written(self) -> None:
        """To be called when nothing but the COMMIT is left to do."""
        self.may_be_there = True


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
        if claims.may_be_there:
            pool.mark_not_sent(claims.jobs, "canceled")
        else:
            pool.release(len(claims.jobs))
        raise
    except BaseException:
        pool.release(len(claims.jobs))
        raise
    pool.start(claims.jobs)
