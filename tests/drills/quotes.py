"""60 good closes beside 3 that cannot be quoted: the good ones are as fast as alone, and somebody knows of the bad."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Final

from broker_simulator.control import Pin
from tests.drills.harness import Lines, main, percentile, verified, whole_system
from tests.system.desk import Desk, Held

GOOD: Final = 60
ROUNDS: Final = 3
TOLD_WITHIN_S: Final = 300.0
BAD: Final = {
    "refused by the feed": Pin(spoils="refuse"),
    "without a bid": Pin(ask=Decimal(100)),
    "absent": Pin(missing=True),
}


def close_all(desk: Desk, positions: list[Held], bad: list[Held]) -> list[float]:
    """Ask for all at once, the bad ones first; returns how long each good one took, by the database's clock."""
    with ThreadPoolExecutor(16) as callers:
        list(callers.map(lambda one: desk.close(one, f"k{one.id}"), [*bad, *positions]))
    desk.until_status("closed", positions, within_s=120.0)
    ids = [one.id for one in positions]
    rows = desk.rows("SELECT completed_at - created_at AS took FROM close_requests WHERE position_id = ANY(%s)", ids)
    return [row["took"].total_seconds() for row in rows]


def bad_ones(desk: Desk, pins: list[Pin]) -> list[Held]:
    held = desk.hold_all([(10, "stock")] * len(pins))
    for one, pin in zip(held, pins, strict=True):
        desk.control.pin(one.symbol, pin)
    return held


def told(desk: Desk, held: Held) -> str | None:
    """The incident or the coded end."""
    rows = desk.rows("SELECT id, status, reason FROM close_requests WHERE position_id = %s", held.id)
    if rows[0]["status"] == "failed":
        return str(rows[0]["reason"])
    found = desk.rows("SELECT kind FROM incidents WHERE close_request_id = %s AND closed_at IS NULL", rows[0]["id"])
    return str(found[0]["kind"]) if found else None


def drill(lines: Lines) -> None:
    with whole_system() as system, Desk(system) as desk:
        close_all(desk, desk.hold_all([(10, "stock")] * 10), [])  # warms up
        alone: list[float] = []
        beside: list[float] = []
        bad: list[Held] = []
        for _ in range(ROUNDS):
            alone += close_all(desk, desk.hold_all([(10, "stock")] * GOOD), [])
            new = bad_ones(desk, list(BAD.values()))
            began = time.monotonic()
            beside += close_all(desk, desk.hold_all([(10, "stock")] * GOOD), new)
            bad += new
        without, with_bad = percentile(alone, 0.99), percentile(beside, 0.99)
        print(f"p50 without {percentile(alone, 0.5):.3f} s, with {percentile(beside, 0.5):.3f} s")
        lines.check(
            "good ones' p99 <= 1.5 x the p99 without the bad ones",
            with_bad <= 1.5 * without,
            f"{with_bad:.3f} s, {without:.3f} s without, {ROUNDS} rounds of {GOOD}",
        )
        silent = bad_ones(desk, [Pin(spoils="hang")])
        took = close_all(desk, desk.hold_all([(10, "stock")] * GOOD), silent)
        print(f"beside a new one about which no call is ever answered: p99 {percentile(took, 0.99):.3f} s")
        bad += silent
        while not all(told(desk, one) for one in bad) and time.monotonic() < began + TOLD_WITHIN_S:
            time.sleep(1.0)
        seen = [told(desk, one) for one in bad]
        lines.check("each bad one is told of within 5 min", all(seen), f"{seen} after {time.monotonic() - began:.0f} s")
        ids = [one.id for one in bad]
        rows = desk.count("SELECT count(*) FROM outbox_events WHERE position_id = ANY(%s)", ids)
        print(f"outbox rows of the {len(bad)} bad closes meanwhile: {rows}")
        for one in bad:
            desk.control.pin_quote(one.symbol, "99.95", "100.05")
        waiting = [one for one, kind in zip(bad, seen, strict=True) if kind is None or kind.startswith("deferred_")]
        desk.until_status("closed", waiting, within_s=TOLD_WITHIN_S)
        lines.check("every invariant holds once they can be quoted", verified(desk), "closectl verify")


if __name__ == "__main__":
    main(drill)
