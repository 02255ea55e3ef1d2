"""Every service with its host's clock at -1 h, -5 min, +5 min and +1 h, moved while closes run: they end as without, in
at most twice the time, and the skew is an incident."""

from __future__ import annotations

from functools import partial
from typing import Final

from demo.system import SERVICES
from tests.drills.harness import Lines, main, verified, whole_system
from tests.host_clocks import HostClocks
from tests.system.desk import Desk
from tests.system.moved_clocks import Outcome, module, moved_by_hand, run_closes, skewed

EACH: Final = 7
"""Of three kinds."""
SHIFTS_S: Final = (-3600, -300, 300, 3600)
UNDISTURBED: Final = 3
SHORTEST_S: Final = 5.0
"""Shorter runs are compared with this: what a busy machine adds is not the clock's doing."""


def drill(lines: Lines) -> None:
    with whole_system() as system, Desk(system) as desk, moved_by_hand(system) as clocks:
        ended: Outcome | None = None
        times = []
        for _ in range(UNDISTURBED):
            outcome, took_s = run_closes(desk, EACH, lambda: None)
            lines.check("undisturbed closes end alike", ended in (None, outcome), dict(outcome))
            ended = outcome
            times.append(took_s)
        assert ended is not None
        usual_s = max(SHORTEST_S, *times)
        print(f"undisturbed: {', '.join(f'{took_s:.1f} s' for took_s in times)}", flush=True)
        for services in (*((one,) for one in SERVICES), SERVICES):
            for shift_s in SHIFTS_S:
                run_shifted(lines, desk, clocks, services, shift_s, ended=ended, usual_s=usual_s)
        lines.check("every invariant holds", verified(desk), desk.incidents())


def run_shifted(
    lines: Lines,
    desk: Desk,
    clocks: HostClocks,
    services: tuple[str, ...],
    shift_s: int,
    *,
    ended: Outcome,
    usual_s: float,
) -> None:
    def shift(seconds: int) -> None:
        for service in services:
            clocks.shift(module(service), seconds)

    named = "every service" if services == SERVICES else services[0]
    outcome, took_s = run_closes(desk, EACH, partial(shift, shift_s))
    told = f"{named} at {shift_s:+d} s"
    lines.check(f"{told}: ended as without", outcome == ended, dict(outcome - ended) or "the same")
    lines.check(f"{told}: within 2 x {usual_s:.1f} s", took_s <= 2 * usual_s, f"{took_s:.1f} s")
    desk.until("the skew is told", lambda: skewed(desk) == set(services), within_s=60)
    lines.check(f"{told}: the skew is an incident", skewed(desk) == set(services), sorted(skewed(desk)))
    shift(0)
    desk.until("it is over", lambda: not skewed(desk), within_s=60)


if __name__ == "__main__":
    main(drill)
