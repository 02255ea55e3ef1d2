"""`python -m tests.containers`: the tests of the real servers, on servers in containers instead of embedded ones.

They are the same tests with the same fixtures: DEVSTACK_PROVIDER chooses what runs the servers. The containers are
removed at the end, also after Ctrl-C or a SIGTERM. Arguments go to pytest instead of all places in four processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import FrameType
from typing import Final

from devstack import StackError, containers
from tests.system.instance import INSTANCES
from tests.system.only_secured import ONLY_SECURED

REPOSITORY: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = REPOSITORY / "var" / "test-containers.xml"
PLACES: Final = ("storage", "kafka", "pipeline", "doors", "closectl", "system")
IN_PARALLEL: Final = ("-n", "4", "--no-loadscope-reorder")


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def run_tests(arguments: list[str]) -> int:
    """The exit code of pytest, which gets a Ctrl-C of the terminal itself and is told of a SIGTERM here."""
    RESULTS.parent.mkdir(exist_ok=True)
    everything = [*IN_PARALLEL, *(f"tests/{place}" for place in PLACES)]
    # Bytecode is kept, because services start often.
    environment = {**os.environ, "DEVSTACK_PROVIDER": "containers", "PYTHONDONTWRITEBYTECODE": ""}
    argv = [sys.executable, "-m", "pytest", "-q", "--durations=10", f"--junitxml={RESULTS}"]
    running = subprocess.Popen([*argv, *(arguments or everything)], cwd=REPOSITORY, env=environment)
    try:
        return running.wait()
    except SystemExit:
        running.send_signal(signal.SIGINT)
        raise
    finally:
        running.wait()


def counted() -> str:
    """How many tests ran, as pytest has noted it."""
    suites = ET.parse(RESULTS).getroot().iter("testsuite")
    found = [{name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")} for suite in suites]
    total = {name: sum(one[name] for one in found) for name in found[0]}
    return ", ".join(f"{number} {name}" for name, number in total.items())


def end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    RESULTS.unlink(missing_ok=True)
    try:
        containers.check_engine()
        for instance in ("test", *INSTANCES):
            say(f"instance {instance}, in containers")
            containers.up(instance, say)
        say(f"left out, because these servers have no TLS: {', '.join(ONLY_SECURED)} of tests/system")
        result = run_tests(sys.argv[1:])
        if RESULTS.exists():
            say(f"on {', '.join(containers.images())}: {counted()}")
        return result
    except StackError as error:
        print(f"test-containers: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        containers.remove_owned()


if __name__ == "__main__":
    sys.exit(main())
