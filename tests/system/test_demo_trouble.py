"""What `make demo` says when it cannot go on: one line and exit code 2, for nothing is violated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.services import Service, ServiceSpec
from demo.system import REPOSITORY, System
from demo.trouble import Stopped, alone, explain, refuse_ended

if TYPE_CHECKING:
    import devstack


def test_a_second_demo_leaves_the_first_ones_database_alone(stack: devstack.Stack) -> None:
    with alone(stack):
        second = subprocess.run(
            [sys.executable, "-m", "demo", "demo", "--instance", stack.instance],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert second.returncode == 2
    assert "another `make demo` or `make run`" in second.stdout
    assert "wiping" not in second.stdout
    assert "Traceback" not in second.stderr


def test_a_service_that_ended_stops_the_demo_at_once(stack: devstack.Stack, tmp_path: Path) -> None:
    system = System(stack, "closeflow_none", tmp_path)
    refuse_ended(system)
    spec = ServiceSpec(name="close-api", module="no_such_module", environment={}, ready_url="")
    system.running["close-api"] = Service(spec, directory=tmp_path)
    assert system.running["close-api"].process.wait(10) == 1
    with pytest.raises(Stopped, match=r"close-api ended with 1; see .*close-api\.log"):
        refuse_ended(system)


def test_an_error_of_the_surroundings_is_one_line_and_its_trace_a_file(stack: devstack.Stack, tmp_path: Path) -> None:
    told = explain(System(stack, "closeflow_none", tmp_path), ConnectionError("refused\nwith details"))
    assert told.startswith("ConnectionError: refused (details: ")
    assert "with details" in next(tmp_path.glob("demo-error-*.log")).read_text()
