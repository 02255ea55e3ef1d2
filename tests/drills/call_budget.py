"""A broker that allows 200 calls a minute in all, refused ones counted: 250 closes, each filled in two parts.

    python -m tests.drills.call_budget [hint]

`hint` is how the broker says when to come again (`seconds`, `zero`, `past_reset`, …), `seconds` if it is left out.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from pydantic import TypeAdapter

from broker_simulator.calls import Hint
from broker_simulator.control import Behaviour, CallLimit, FillInParts
from tests.drills.harness import Lines, main, percentile, verified, whole_system
from tests.system.desk import Desk

CLOSES: Final = 250
CALLS_A_MINUTE: Final = 200
CALLS_AT_MOST: Final = 1000
WITHIN_S: Final = 480.0
ENDED: Final = """
    SELECT extract(epoch FROM r.completed_at - r.created_at)::float AS took_s FROM close_requests r
    WHERE r.status = 'completed' AND r.filled_qty = r.target_qty
"""


def drill(hint: Hint, lines: Lines) -> None:
    with whole_system() as system, Desk(system) as desk:
        held = desk.hold_all([(10, "stock")] * CLOSES)
        desk.control.script(Behaviour(execution=FillInParts(parts=2, every_s=0.5)))
        desk.control.limit_calls(CallLimit(per_minute=CALLS_A_MINUTE, hint=hint))
        before = desk.control.calls().total
        began = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(partial(desk.close, key="k"), held))
        print(f"accepted in {time.monotonic() - began:.1f} s", flush=True)
        told = 0.0
        while len(ended := desk.rows(ENDED)) < CLOSES and time.monotonic() - began < WITHIN_S:
            time.sleep(0.5)
            if time.monotonic() - told > 20:
                told = time.monotonic()
                calls = desk.control.calls()
                print(f"{told - began:5.0f} s: {len(ended)} closed, {calls.total - before} calls", flush=True)
        took = time.monotonic() - began
        calls = desk.control.calls()
        for name in sorted({*calls.taken, *calls.refused}):
            print(f"  {name}: {calls.taken.get(name, 0)} taken, {calls.refused.get(name, 0)} refused")
        print(f"  incidents: {dict(Counter(desk.incidents()))}", flush=True)
        lines.check(f"{CLOSES} closes are closed", len(ended) == CLOSES, len(ended))
        lines.check(f"within {WITHIN_S:g} s", took < WITHIN_S, f"{took:.0f} s")
        if ended:
            seconds = [row["took_s"] for row in ended]
            print(f"  of one: p50 {percentile(seconds, 0.5):.1f} s, p99 {percentile(seconds, 0.99):.1f} s", flush=True)
        lines.check("no gap incident", "gap" not in desk.incidents(), desk.incidents().count("gap"))
        made = calls.total - before
        lines.check(f"at most {CALLS_AT_MOST} calls", made <= CALLS_AT_MOST, made)
        desk.control.limit_calls(None)
        lines.check("verify", verified(desk), "holds")


if __name__ == "__main__":
    main(partial(drill, TypeAdapter(Hint).validate_python(sys.argv[1] if len(sys.argv) > 1 else "seconds")))
