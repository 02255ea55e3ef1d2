"""While the database is away: which errors pass by themselves, and how a poll waits for it."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from closeflow.storage.core.engine import CommitUnknown, first_line, sqlstate
from closeflow.tasks import GrowingPause, being_cancelled

_IDLE_IN_TRANSACTION: Final = "25P03"
"""The server ended a session that idled in a transaction: this process was paused."""


def is_away(error: BaseException) -> bool:
    """Whether it passes by itself: the server is not there, ended the session, is full, or kept us waiting for a lock
    longer than allowed. Any other error of the database is a mistake of ours."""
    if isinstance(error, DBAPIError):
        lost = error.connection_invalidated or sqlstate(error) == _IDLE_IN_TRANSACTION
        return lost or isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, CommitUnknown | PoolTimeout | OSError)


class Patience:
    """Of one poll. `trouble` is what readiness says of it: None while it gets through."""

    def __init__(self, *, first_s: float = 0.1, cap_s: float = 5.0) -> None:
        self._pause = GrowingPause(first_s, cap_s)
        self.trouble: str | None = None

    def pause_s(self, error: Exception) -> float:
        """How long to wait before the next try, ever longer up to the cap; raises the error if it does not pass, or
        took the place of a cancellation."""
        if being_cancelled() or not is_away(error):
            raise error
        self.trouble = reason(error)
        return self._pause.next_s()

    def rewarded(self) -> None:
        """The poll got through: the next pause is short again, and readiness has nothing to say."""
        self._pause.reset()
        self.trouble = None


def reason(error: BaseException) -> str:
    """An error in one line, as logs and readiness show it."""
    return f"{type(error).__name__}: {first_line(error)}"
