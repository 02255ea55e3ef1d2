"""Whether a moment that was written down has come, by a clock that may have been set since."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

FARTHEST: Final = timedelta(minutes=10)
"""No pause is longer; what has to wait longer looks again meanwhile."""


def is_due(at: datetime, now: datetime) -> bool:
    """A moment beyond the longest pause was written by a clock that was ahead, and is not waited for (invariant 20)."""
    return not now < at <= now + FARTHEST


def look_again_by(until: datetime, now: datetime) -> datetime:
    """The next moment to look at something that has to wait until then."""
    return min(until, now + FARTHEST)
