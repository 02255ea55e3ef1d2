"""kill -9 of order-submitter 20 times under 100 closes, at a broker that remembers ids only while orders are open; then
again with orders that say they close, at a broker that refuses what exceeds a position.

`python -m tests.drills.kills`. Each kill waits for sends that are claimed and not answered, so it hits one of the
moments between a claim and its answer.
"""

from __future__ import annotations

import random
import time
from typing import Final

from demo.system import System
from tests.drills.harness import Lines, Overrides, main, verified, whole_system
from tests.system.desk import Desk, Held

KILLS: Final = 20
CLOSES_EACH: Final = 5
MOST_FOR_A_PERSON: Final = 2
IN_FLIGHT_WITHIN_S: Final = 10.0
SETTLED_WITHIN_S: Final = 400.0
SETTINGS: Final = {"BROKER_DEDUPLICATION": "while_open"}
VARIANTS: Final = {"while_open": {}, "close only": {"BROKER_REFUSES_TO_EXCEED": "true"}}
_OPEN: Final = "SELECT count(*) FROM order_sends WHERE kind = 'submit' AND answered_at IS NULL"
_LEFT: Final = """
    SELECT o.client_order_id, o.status FROM orders o
    WHERE o.status IN ('planned', 'submit_unknown') OR EXISTS (
        SELECT FROM incidents i WHERE i.client_order_id = o.client_order_id AND i.closed_at IS NULL)
"""


def drill(lines: Lines) -> None:
    for name, settings in VARIANTS.items():
        print(name, flush=True)
        _kill(lines, {"order-submitter": SETTINGS | settings})


def _kill(lines: Lines, settings: Overrides) -> None:
    chance = random.Random(8)
    with whole_system(settings) as system, Desk(system) as desk:
        desk.control.set_capabilities(deduplication="while_open", oversell="refuse_closes")
        portfolio = desk.hold_all([(10, "stock") for _ in range(KILLS * CLOSES_EACH)])
        in_flight = [kill_under(desk, system, portfolio[n::KILLS], chance) for n in range(KILLS)]
        began = time.monotonic()
        while _unfinished(desk, portfolio) and not _all_told(desk) and time.monotonic() - began < SETTLED_WITHIN_S:
            time.sleep(1)
        left = desk.rows(_LEFT)
        sends = desk.rows(
            "SELECT begun_at IS NULL AS unbegun, answer, count(*) AS n FROM order_sends WHERE kind = 'submit'"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )
        print(f"open sends at each kill: {in_flight}; settled after {time.monotonic() - began:.0f} s", flush=True)
        print(f"sends: {[(row['unbegun'], row['answer'], row['n']) for row in sends]}", flush=True)
        lines.check(f"at most {MOST_FOR_A_PERSON} orders need a person", len(left) <= MOST_FOR_A_PERSON, left)
        unfinished = _unfinished(desk, portfolio)
        lines.check("every other close is closed", unfinished <= len(left), f"{len(portfolio) - unfinished} closed")
        doubles = [one.client_order_id for one in desk.control.orders() if one.accepted > 1]
        held = {symbol: str(quantity) for symbol, quantity in desk.control.positions().items() if quantity < 0}
        lines.check("no order is at the broker twice, nothing is oversold", not doubles and not held, (doubles, held))
        lines.check("closectl verify", bool(left) or verified(desk), "not asked, a person has to look" if left else "")


def kill_under(desk: Desk, system: System, portfolio: list[Held], chance: random.Random) -> int:
    """Ask for closes, kill the sender of them, start another; returns how many sends had no answer at the kill."""
    for held in portfolio:
        desk.close(held)
    deadline = time.monotonic() + IN_FLIGHT_WITHIN_S
    while (found := desk.count(_OPEN)) == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.03))
    system.kill("order-submitter")
    system.start("order-submitter")
    return found


def _unfinished(desk: Desk, portfolio: list[Held]) -> int:
    ids = [held.id for held in portfolio]
    return desk.count("SELECT count(*) FROM positions WHERE id = ANY(%s) AND status <> 'closed'", ids)


def _all_told(desk: Desk) -> bool:
    """Whether a person has been told of every close that is not closed."""
    untold = """
        SELECT count(*) FROM positions p WHERE p.status <> 'closed' AND NOT EXISTS (
            SELECT FROM orders o JOIN incidents i USING (client_order_id)
            WHERE o.position_id = p.id AND i.kind = 'order_not_found' AND i.closed_at IS NULL)
    """
    return desk.count(untold) == 0


if __name__ == "__main__":
    main(drill)
