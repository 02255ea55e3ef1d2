"""A claimed send on its way: how far its process has come, and the call it has made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from closeflow.domain.model import Order, Send
from closeflow.domain.sending.broker_answers import CancelAnswer, SubmitAnswer
from closeflow.storage.order_sends import Answered


class Stage(Enum):
    CLAIMED = auto()
    CHECKED = auto()
    """Past the fence, not a byte written."""
    BEGUN = auto()
    """Said to begin, not a byte written."""
    CALLING = auto()
    ANSWERED = auto()
    CONCLUDED = auto()


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way to the broker, and its answer on the way back. Nobody may be waiting any more."""

    job: Job
    answer: SubmitAnswer | CancelAnswer | None = None
    given_up: bool = False


@dataclass(slots=True, eq=False)
class Job:
    order: Order
    send: Send
    checked_at: float
    not_sent: bool = False
    """Its claim may be in the database, and it will never be made."""
    stage: Stage = Stage.CLAIMED
    call: Call | None = None
    called_at: float = 0.0
    answer: SubmitAnswer | CancelAnswer | None = None
    said: Answered | None = None
    writes: int = 0
