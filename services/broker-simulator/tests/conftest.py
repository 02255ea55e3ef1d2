"""One simulator for the session, reset before each test; probes for REST and stream."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_simulator.control import Control
from broker_simulator.probe import RestProbe, StreamProbe, listening
from broker_simulator.process import SimulatorProcess

POSITIONS = """account_id,symbol,asset_type,quantity,multiplier,currency,position_id
DESK,AAPL,stock,100,1,USD,1
DESK,AAPL,stock,20,1,USD,2
DESK,TSLA,stock,-50,1,USD,3
DESK,NVDA,stock,2.5,1,USD,4
DESK,AAPL261218C00200000,option,3,100,USD,5
DESK,BTC/USD,crypto,0.75,1,USD,6
"""


@pytest.fixture(scope="session")
def session_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    directory = tmp_path_factory.mktemp("broker")
    positions = directory / "positions.csv"
    positions.write_text(POSITIONS)
    with SimulatorProcess(directory, {"positions_csv": str(positions), "tick_ms": "50"}) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def session_control(session_simulator: SimulatorProcess) -> Iterator[Control]:
    with session_simulator.control() as control:
        yield control


@pytest.fixture(scope="session")
def session_broker(session_simulator: SimulatorProcess) -> Iterator[RestProbe]:
    probe = RestProbe(session_simulator)
    yield probe
    probe.http.close()


@pytest.fixture
def simulator(session_simulator: SimulatorProcess, session_control: Control) -> SimulatorProcess:
    session_control.reset()
    return session_simulator


@pytest.fixture
def control(simulator: SimulatorProcess, session_control: Control) -> Control:
    return session_control


@pytest.fixture
def broker(simulator: SimulatorProcess, session_broker: RestProbe) -> RestProbe:
    return session_broker


@pytest.fixture
def listener(simulator: SimulatorProcess) -> Iterator[StreamProbe]:
    with listening(simulator) as probe:
        yield probe


@pytest.fixture
def mortal_simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """One that a test may kill."""
    positions = tmp_path / "positions.csv"
    positions.write_text(POSITIONS)
    with SimulatorProcess(tmp_path / "broker", {"positions_csv": str(positions)}) as simulator:
        yield simulator
