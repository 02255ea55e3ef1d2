"""`make run` starts a service again that ended."""

from __future__ import annotations

from pathlib import Path

from demo.restarts import LONGEST_PAUSE_S, OFTEN, RAN_WELL_S, Restarts
from demo.services import Service, ServiceSpec


class Machine:
    """Services that end at once, and a clock that is set by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 0.0
        self.lines: list[str] = []
        self.launched = 0
        self.running: dict[str, Service] = {}
        self.restarts = Restarts(self.launch, self.lines.append, clock=lambda: self.now)
        self.launch("close-api")

    def launch(self, name: str) -> None:
        spec = ServiceSpec(name=name, module="no_such_module", environment={}, ready_url="")
        self.running[name] = Service(spec, directory=self.directory)
        self.running[name].process.wait(30)
        self.launched += 1

    def until_launched(self) -> float:
        """Look every tenth of a second; how long it took."""
        began, before = self.now, self.launched
        while self.launched == before:
            self.now += 0.1
            self.restarts.look(self.running)
        return round(self.now - began)


def test_what_ended_is_started_again_after_growing_pauses_and_it_is_said(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert [machine.until_launched() for _ in range(6)] == [1, 2, 4, 8, 16, LONGEST_PAUSE_S]
    assert machine.lines[0].startswith("close-api ended with 1 and is started again in 1 s (log: ")
    assert machine.lines[1] == "close-api is started again"
    assert [f"{OFTEN} times in a row" in line for line in machine.lines[::2]] == [False] * 4 + [True, False]
    assert "6 times in a row" in machine.lines[10]
    machine.now += RAN_WELL_S + 1
    assert machine.until_launched() == 1


def test_what_runs_is_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spec = ServiceSpec(
        name="close-api", module="broker_simulator", environment={"BROKER_SIMULATOR_PORT": "0"}, ready_url=""
    )
    machine.running["close-api"] = Service(spec, directory=tmp_path)
    try:
        for _ in range(100):
            machine.now += 1
            machine.restarts.look(machine.running)
        assert machine.lines == []
    finally:
        machine.running["close-api"].kill()
