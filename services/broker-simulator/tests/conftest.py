"""One simulator for the session, reset before each test; a websocket listener; a small REST client."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from broker_simulator.control import Control
from broker_simulator.process import SimulatorProcess
from websockets.sync.client import connect

POSITIONS = """account_id,symbol,asset_type,quantity,multiplier,currency,position_id
DESK,AAPL,stock,100,1,USD,1
DESK,AAPL,stock,20,1,USD,2
DESK,TSLA,stock,-50,1,USD,3
DESK,NVDA,stock,2.5,1,USD,4
DESK,AAPL261218C00200000,option,3,100,USD,5
DESK,BTC/USD,crypto,0.75,1,USD,6
"""


class Broker:
    """Just enough of a client to say things shortly; answers are parsed JSON."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.http = httpx.Client(base_url=simulator.url, headers=simulator.headers, timeout=5)

    def post(self, client_order_id: str, *, timeout_s: float = 5, **fields: str) -> httpx.Response:
        body = {"symbol": "AAPL", "qty": "10", "side": "sell", "type": "market", "time_in_force": "day"}
        return self.http.post(
            "/v2/orders", json={**body, **fields, "client_order_id": client_order_id}, timeout=timeout_s
        )

    def get(self, path: str, **params: str) -> Any:
        return self.http.get(path, params=params).raise_for_status().json()

    def find(self, client_order_id: str) -> Any:
        answer = self.http.get("/v2/orders:by_client_order_id", params={"client_order_id": client_order_id})
        return answer.json() if answer.is_success else None

    def await_status(self, client_order_id: str, *statuses: str) -> Any:
        order = None
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            order = self.find(client_order_id)
            if order and order["status"] in statuses:
                return order
            time.sleep(0.01)
        raise AssertionError(f"{client_order_id} did not become {statuses}: {order}")


class Listener:
    """A trade-update listener; `updates` are the `data` objects in order of arrival."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.updates: list[Any] = []

    def until(self, event: str, count: int = 1) -> list[Any]:
        """Read until `count` updates of this event have arrived; returns everything read so far."""
        deadline = time.monotonic() + 5
        while sum(update["event"] == event for update in self.updates) < count:
            message = json.loads(self.socket.recv(timeout=max(0.01, deadline - time.monotonic())))
            if message["stream"] == "trade_updates":
                self.updates.append(message["data"])
        return self.updates


@contextmanager
def listening(simulator: SimulatorProcess) -> Iterator[Listener]:
    with connect(simulator.stream_url) as socket:
        key = {"key_id": simulator.key_id, "secret_key": simulator.secret_key}
        socket.send(json.dumps({"action": "authenticate", "data": key}))
        assert json.loads(socket.recv(timeout=5))["data"]["status"] == "authorized"
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        assert json.loads(socket.recv(timeout=5)) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        yield Listener(socket)


@pytest.fixture(scope="session")
def session_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    directory = tmp_path_factory.mktemp("broker")
    positions = directory / "positions.csv"
    positions.write_text(POSITIONS)
    with SimulatorProcess(directory, {"positions_csv": str(positions), "tick_ms": "50"}) as simulator:
        yield simulator


@pytest.fixture
def simulator(session_simulator: SimulatorProcess) -> SimulatorProcess:
    with session_simulator.control() as control:
        control.reset()
    return session_simulator


@pytest.fixture
def control(simulator: SimulatorProcess) -> Iterator[Control]:
    with simulator.control() as control:
        yield control


@pytest.fixture
def broker(simulator: SimulatorProcess) -> Iterator[Broker]:
    broker = Broker(simulator)
    yield broker
    broker.http.close()


@pytest.fixture
def listener(simulator: SimulatorProcess) -> Iterator[Listener]:
    with listening(simulator) as listener:
        yield listener


@pytest.fixture
def fresh_simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """One that a test may kill."""
    positions = tmp_path / "positions.csv"
    positions.write_text(POSITIONS)
    with SimulatorProcess(tmp_path / "broker", {"positions_csv": str(positions)}) as simulator:
        yield simulator


@pytest.fixture
def connect_broker() -> Callable[[SimulatorProcess], Broker]:
    return Broker
