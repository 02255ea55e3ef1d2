"""Where a run looks for trouble: every seed draws a theme, whose faults are frequent while the others are rare.

With everything at once no close gets far enough to meet the rarer troubles of its later life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.simulation.faults import Fault

F = Fault
_ANY: Final = (0.0, 0.0, 0.01, 0.05, 0.2)
_OFTEN: Final = (0.2, 0.4, 0.6)
_RARELY: Final = (0.0, 0.0, 0.0, 0.01)


@dataclass(frozen=True, slots=True)
class Theme:
    """`actions` multiply the usual weights of the named actions; `slow`: time goes past
    leases and time-outs, and because less happens meanwhile such a run takes twice as many steps."""

    name: str
    often: frozenset[Fault] = frozenset()
    actions: Mapping[str, float] = field(default_factory=dict)
    slow: bool = False
    never: frozenset[Fault] = frozenset()

    def odds(self, random: Random) -> dict[Fault, float]:
        """Swarm testing: each run leaves some faults out, so that every combination gets its turn."""
        if not self.often:
            return {fault: random.choice(_ANY) for fault in Fault}
        odds = {fault: random.choice(_OFTEN if fault in self.often else _RARELY) for fault in Fault}
        return odds | dict.fromkeys(self.never, 0.0)


REVERSALS: Final = "reversals"
CLOSE_ONLY: Final = "close only"
"""At a broker that forgets ids and refuses what exceeds a position, sends are in transit for longer than R6 assumes.
Nothing but fills ends an order: what the broker had ended unfilled it would take a second time."""
THEMES: Final = (
    Theme("everything"),
    Theme(
        "silence",
        frozenset({F.STALLED, F.ANSWER_LOST, F.REPEAT_REFUSED, F.NOT_VISIBLE, F.PAUSE}),
        {
            "network_stalls": 4,
            "time_passes": 2,
            "request_arrives": 2,
            "trouble_connector": 0.3,
            "close_again": 0.3,
            "keep_watch": 4,
            "look_up": 4,
            "attend_orders": 4,
            "operator_acts": 0,
            "operator_clears_up": 6,
            "pause": 0.3,
        },
        slow=True,
    ),
    Theme(
        "absence",
        frozenset({F.REQUEST_LOST, F.PAUSE}),
        {
            "time_passes": 3,
            "keep_watch": 4,
            "look_up": 6,
            "attend_orders": 6,
            "request_arrives": 2,
            "operator_acts": 0,
            "operator_clears_up": 10,
            "trouble_connector": 0.3,
            "close_again": 0.3,
            "pause": 0.3,
        },
        slow=True,
    ),
    Theme(
        "cancels",
        frozenset({F.CANCEL_REFUSED, F.NO_QUANTITY, F.REPORT_DROPPED, F.REPORT_REORDERED, F.REPORT_REPEATED}),
        {"operator_acts": 4, "broker_fills": 0.3, "attend_orders": 3, "request_arrives": 2, "consume_fills": 2},
    ),
    Theme(
        "ends",
        frozenset({F.NO_QUANTITY, F.REPORT_DROPPED, F.REPORT_REORDERED, F.REJECTED_LATER}),
        {"operator_acts": 0, "broker_ends": 8, "wake_requests": 4, "broker_fills": 2, "report_arrives": 0.5},
    ),
    Theme(
        REVERSALS,
        frozenset({F.REPORT_DROPPED, F.REPORT_REORDERED, F.REPORT_REPEATED}),
        {
            "broker_fills": 3,
            "broker_busts": 2,
            "broker_corrects": 2,
            "operator_acts": 2,
            "request_arrives": 2,
            "report_arrives": 2,
            "consume_fills": 2,
            "backfill": 2,
            "wake_requests": 2,
        },
    ),
    Theme(
        "gaps",
        frozenset({F.FILL_DROPPED}),
        {
            "operator_acts": 0,
            "broker_fills": 3,
            "broker_ends": 8,
            "broker_pauses": 0,
            "report_arrives": 3,
            "consume_fills": 2,
            "consume_submits": 2,
            "request_arrives": 2,
            "wake_requests": 4,
            "ask_quiet_orders": 0.1,
            "backfill": 0.1,
            "fill_gaps": 0.1,
        },
        slow=True,
    ),
    Theme(
        "refusals",
        frozenset({F.REFUSED, F.UNMAPPED, F.REJECTED_LATER, F.RATE_LIMITED, F.SERVER_ERROR, F.NOT_SENT, F.ANSWER_LOST}),
        {"wake_requests": 3, "time_passes": 2, "operator_acts": 0.5},
    ),
    Theme(
        "crashes",
        frozenset({F.CRASH, F.CRASH_AFTER_COMMIT, F.COMMIT_LOST, F.COMMIT_UNHEARD, F.REBALANCE, F.PAUSE, F.KAFKA_AWAY}),
        {"crash": 2, "rebalance": 2, "operator_acts": 0.5},
    ),
    Theme(
        "publication",
        frozenset({F.CDC_EARLY, F.CDC_RESENT, F.SLOT_LOST}),
        {"trouble_connector": 3, "audit": 2, "wake_requests": 2},
    ),
    Theme(
        "controls",
        frozenset({F.HALTED, F.LIMITED, F.MARKET_CLOSED, F.NO_QUOTE, F.RATE_LIMITED, F.KEY_REFUSED}),
        {"controls_change": 3, "wake_requests": 4, "broker_ends": 6, "broker_fills": 0.5, "report_arrives": 2},
    ),
    Theme(
        "clocks",
        frozenset({F.DATABASE_CLOCK, F.PROCESS_CLOCK, F.BROKER_CLOCK, F.ANSWER_LOST, F.STALLED, F.PAUSE}),
        {"clock_jumps": 4, "keep_watch": 2, "network_stalls": 2},
    ),
    Theme(
        CLOSE_ONLY,
        frozenset({F.STALLED, F.CRASH}),
        {
            "network_stalls": 3,
            "time_passes": 3,
            "keep_watch": 4,
            "look_up": 8,
            "attend_orders": 6,
            "request_arrives": 2,
            "crash": 0.3,
            "broker_ends": 0,
            "broker_pauses": 0,
            "broker_busts": 0,
            "broker_corrects": 0,
            "operator_acts": 0,
            "operator_clears_up": 0,
            "trouble_connector": 0.3,
            "close_again": 0.3,
            "pause": 0.3,
        },
        slow=True,
        never=frozenset({F.REJECTED_LATER}),
    ),
)
