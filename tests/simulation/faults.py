"""What goes wrong in one run, how often, and what the run has seen of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final


class Violation(AssertionError):
    """Something that must hold whatever happens did not."""


class Crashed(Exception):
    """The process died in the middle of what it did."""


class Fault(StrEnum):
    ROLLED_BACK = "transaction rolled back"
    COMMIT_LOST = "commit unknown, not written"
    COMMIT_UNHEARD = "commit unknown, written"
    CRASH = "crash"
    CRASH_AFTER_COMMIT = "crash between commit and what follows"
    PAUSE = "process paused"
    REBALANCE = "rebalance"
    ZOMBIE = "batch processed after its partition was given away"
    REDELIVERY = "record delivered again"
    KAFKA_AWAY = "publish failed"
    CDC_RESENT = "rows sent again by a restarted connector"
    CDC_EARLY = "row delivered before its commit was visible"
    SLOT_LOST = "slot lost with rows waiting"
    STALLED = "network stalled with requests on their way"
    REQUEST_LOST = "request lost on its way to the broker"
    ANSWER_LOST = "time-out after accept"
    LATE_ACCEPT = "accepted after the time-out"
    NOT_SENT = "connection refused"
    TAKEN_OVER = "claim without a byte answered by another"
    SERVER_ERROR = "5xx"
    RATE_LIMITED = "429"
    KEY_REFUSED = "401"
    REFUSED = "definitive refusal"
    UNMAPPED = "refusal nobody mapped"
    REPEAT_REFUSED = "refusal of a repeat"
    DUPLICATE_ID = "duplicate id answered"
    EXCESS_REFUSED = "more than is held refused"
    SENT_AGAIN = "id sent again to a broker that forgets"
    DECLARED_LOST = "order declared lost"
    REJECTED_LATER = "accepted, then rejected"
    LOOK_UP_FAILED = "look-up without an answer"
    NOT_VISIBLE = "accepted order not visible to a look-up"
    CANCEL_RACE = "filled while a cancel was on its way"
    CANCEL_REFUSED = "cancel refused while the order lives"
    CANCELED_UNASKED = "canceled or expired unasked"
    PAUSED_ORDER = "suspended or done for day"
    BUSTED = "execution busted"
    CORRECTED = "execution corrected"
    NO_QUANTITY = "end stated without its quantity"
    REPORT_DROPPED = "report dropped"
    FILL_DROPPED = "report of a fill dropped"
    REPORT_REPEATED = "report repeated"
    REPORT_REORDERED = "report out of order"
    DATABASE_CLOCK = "database clock jumped"
    PROCESS_CLOCK = "wall clock of a process jumped"
    BROKER_CLOCK = "broker clock jumped"
    HALTED = "trading halted"
    LIMITED = "account limits lowered"
    MARKET_CLOSED = "market closed"
    NO_QUOTE = "no fresh quote"


HABITS: Final = frozenset({Fault.REPEAT_REFUSED, Fault.NO_QUANTITY, Fault.CANCEL_REFUSED})
"""Not troubles that pass, but how a broker is: they stay when everything is mended."""


@dataclass(slots=True)
class Faults:
    """`happens` draws whether a fault strikes now; `seen` counts those that had an effect."""

    random: Random
    odds: dict[Fault, float]
    seen: Counter[Fault] = field(default_factory=Counter)
    over: bool = False

    def strikes(self, fault: Fault) -> bool:
        """For one whose effect shows later, or not at all: whoever sees that counts it by `saw`."""
        odds = self.odds[fault]
        return (not self.over or fault in HABITS) and bool(odds) and self.random.random() < odds

    def happens(self, fault: Fault) -> bool:
        struck = self.strikes(fault)
        self.seen[fault] += struck
        return struck

    def saw(self, fault: Fault, hit: bool = True) -> None:
        """Count a fault where its effect is, or one that came about by the order of the steps and not by a draw; one
        that `hit` nothing in flight does not count."""
        self.seen[fault] += hit
