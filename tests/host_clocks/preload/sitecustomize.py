"""Python imports this at its start when the directory is on PYTHONPATH: the wall clock of the process goes as the file
HOST_CLOCKS/<module> says, in seconds, and is set anew while it runs. Monotonic clocks, and so asyncio, stay true."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05
EXACT_S: Final = 0.05
"""Between two readings of two clocks a busy machine may do something else."""


def seconds(file: Path) -> float:
    try:
        return float(file.read_text() or 0)
    except FileNotFoundError:
        return 0.0


def keep_setting(file: Path) -> None:
    import time_machine

    clock = time_machine.travel(time.time() + seconds(file), tick=True).start()

    def follow() -> None:
        while True:
            wrong_s = seconds(file) - (time.time() - time_machine.escape_hatch.time.time())
            if abs(wrong_s) > EXACT_S:
                clock.shift(wrong_s)
            time.sleep(POLL_S)

    threading.Thread(target=follow, daemon=True).start()


if (directory := os.environ.get("HOST_CLOCKS")) and "-m" in sys.orig_argv:
    keep_setting(Path(directory) / sys.orig_argv[sys.orig_argv.index("-m") + 1])
