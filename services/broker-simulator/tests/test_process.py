"""The simulator as a child of a test: it does not outlive who started it."""

import subprocess
import sys
import time
from pathlib import Path

import httpx

from broker_simulator.process import SimulatorProcess

PARENT = """
import sys, time
from pathlib import Path
from broker_simulator.process import SimulatorProcess
simulator = SimulatorProcess(Path(sys.argv[1]))
simulator.start()
print(simulator.port, flush=True)
time.sleep(60)
"""


def test_it_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    simulator = SimulatorProcess(tmp_path, port=int(parent.stdout.readline()))
    assert httpx.get(f"{simulator.url}/healthz").is_success
    assert (head := httpx.head(f"{simulator.url}/healthz")).is_success
    assert head.content == b""

    parent.kill()
    parent.wait()

    deadline = time.monotonic() + 10
    while True:
        try:
            httpx.get(f"{simulator.url}/healthz")
        except httpx.TransportError:
            break
        assert time.monotonic() < deadline, "it still answers"
        time.sleep(0.05)
