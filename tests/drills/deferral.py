"""One hour of deferral of 100 closes writes at most 3 000 outbox rows, and each of them is told of.

The first two minutes are real time, in which pauses are short. The other 58 are made by moving the database's clock on,
10 s every half second: pauses are half a minute and longer by then, and every time that they are compared with is the
database's. A cycle through Kafka takes longer by that clock than it does in truth, by about its real duration times 20.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Final

from broker_simulator.control import Pin
from tests.drills.harness import Lines, main, whole_system
from tests.system.desk import Desk

CLOSES: Final = 100
MOST_ROWS: Final = 3_000
REAL_S: Final = 120.0
HOUR_S: Final = 3600.0
STEP_S: Final = 10.0
EVERY_S: Final = 0.5
PINS: Final = (
    Pin(missing=True),
    Pin(spoils="refuse"),
    Pin(ask=Decimal(100)),
    Pin(bid=Decimal(99), ask=Decimal(100), age_s=7200),
)


def drill(lines: Lines) -> None:
    with whole_system() as system, Desk(system) as desk:
        held = desk.hold_all([(10, "stock")] * CLOSES)
        for number, one in enumerate(held):
            desk.control.pin(one.symbol, PINS[number % len(PINS)])
        ids = [one.id for one in held]
        rows = "SELECT count(*) FROM outbox_events WHERE position_id = ANY(%s)"
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(lambda one: desk.close(one, f"k{one.id}"), held))
        began = time.monotonic()
        time.sleep(REAL_S)
        print(f"after {REAL_S:g} s: {desk.count(rows, ids)} rows", flush=True)
        shift = 0.0
        with desk.clock("SYSTEM", "0"):
            while time.monotonic() - began + shift < HOUR_S:
                time.sleep(EVERY_S)
                shift += STEP_S
                desk.shift("SYSTEM", f"{shift} s")
                if shift % 600 < STEP_S:
                    print(f"after {time.monotonic() - began + shift:.0f} s: {desk.count(rows, ids)} rows", flush=True)
            written = desk.count(rows, ids)
            seen = desk.rows("SELECT id, status, reason FROM close_requests WHERE position_id = ANY(%s)", ids)
            open_ones = desk.rows("SELECT kind, close_request_id FROM incidents WHERE closed_at IS NULL")
        told = {one["close_request_id"] for one in open_ones}
        print(Counter((one["status"], one["reason"]) for one in seen), Counter(one["kind"] for one in open_ones))
        lines.check(
            f"an hour writes at most {MOST_ROWS} outbox rows", written <= MOST_ROWS, f"{written} of {CLOSES} closes"
        )
        waiting = {one["id"] for one in seen if one["status"] == "pending"}
        lines.check("every close that waits is told of", waiting <= told, f"{len(waiting & told)} of {len(waiting)}")


if __name__ == "__main__":
    main(drill)
