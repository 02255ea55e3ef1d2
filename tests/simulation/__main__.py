"""`python -m tests.simulation`: run seeds, say how it goes, end with what they came to. Exits with 1 on a violation."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from tests.simulation.running import Ran, run_seed
from tests.simulation.summary import Summary
from tests.simulation.themes import THEMES

PROGRESS_S: Final = 10.0


def main() -> int:
    args = _arguments()
    if args.trace:
        ran = run_seed(args.seed, theme=args.theme, tell=_say)
        _say(f"seed {args.seed}: {ran.steps} steps, everything held")
        return 0
    summary, told = Summary(), time.monotonic()
    for seed in range(args.seed, args.seed + args.seeds):
        ran = run_seed(seed, theme=args.theme)
        summary.add(ran)
        if ran.violation is not None:
            _say(_failure(ran))
        if time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            _say(f"... {summary.seeds} of {args.seeds} seeds, {summary.steps} steps, {summary.violations} violations")
    enough = args.seeds >= summary.ENOUGH_SEEDS and args.theme is None
    missing = summary.missing() if enough else []
    for line in summary.lines():
        _say(line)
    if missing:
        _say(f"these never happened, so this run proves little: {', '.join(missing)}")
    _say(summary.last_line())
    return 1 if summary.violations or missing else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run the real decisions in a simulated world of failures; each seed is one schedule.",
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    themes = [one.name for one in THEMES]
    parser.add_argument("--theme", choices=themes, help="what goes wrong often (default: each in its turn)")
    parser.add_argument("--trace", action="store_true", help="replay the first seed alone, telling every step")
    return parser.parse_args()


def _failure(ran: Ran) -> str:
    return "\n".join(
        [
            f"seed {ran.seed} FAILED after {ran.steps} steps: {ran.violation}",
            f"  its last actions: {', '.join(ran.last)}",
            f"  to replay it: {ran.replay}",
        ]
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
