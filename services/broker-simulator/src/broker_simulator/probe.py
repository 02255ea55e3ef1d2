"""Bare clients for tests: REST as plain JSON, and a listener that remembers what it heard."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from .process import SimulatorProcess

DEADLINE_S = 5.0


class RestProbe:
    """Says things shortly. Answers are parsed JSON, so `Any`."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.http = httpx.Client(base_url=simulator.url, headers=simulator.headers, timeout=DEADLINE_S)

    def post(self, client_order_id: str, *, timeout_s: float = DEADLINE_S, **fields: str) -> httpx.Response:
        """A market order to sell 10 AAPL, but for the fields given."""
        body = {"symbol": "AAPL", "qty": "10", "side": "sell", "type": "market", "time_in_force": "day"}
        order = {**body, "client_order_id": client_order_id, **fields}
        return self.http.post("/v2/orders", json=order, timeout=timeout_s)

    def get(self, path: str, **params: str) -> Any:
        """The body of a successful GET; raises httpx.HTTPStatusError for any other."""
        return self.http.get(path, params=params).raise_for_status().json()

    def find(self, client_order_id: str) -> Any:
        """The order, None when the broker does not find it."""
        answer = self.http.get("/v2/orders:by_client_order_id", params={"client_order_id": client_order_id})
        return answer.json() if answer.is_success else None

    def await_status(self, client_order_id: str, status: str) -> Any:
        """The order once it has this status; AssertionError after the deadline."""
        order: Any = None

        def reached() -> bool:
            nonlocal order
            order = self.find(client_order_id)
            return order is not None and order["status"] == status

        await_condition(reached, lambda: f"{client_order_id} did not become {status}: {order}")
        return order


class StreamProbe:
    """`updates` are the `data` objects of all trade updates read so far, in order of arrival."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.updates: list[Any] = []

    def until(self, event: str, count: int = 1) -> list[Any]:
        """Read until `count` updates of this event have arrived; returns everything read so far."""
        deadline = time.monotonic() + DEADLINE_S
        while sum(update["event"] == event for update in self.updates) < count:
            message = json.loads(self.socket.recv(timeout=max(0.01, deadline - time.monotonic())))
            if message["stream"] == "trade_updates":
                self.updates.append(message["data"])
        return self.updates


@contextmanager
def listening(simulator: SimulatorProcess) -> Iterator[StreamProbe]:
    """A listener that hears every update from now on."""
    with connect(simulator.stream_url) as socket:
        key = {"key_id": simulator.key_id, "secret_key": simulator.secret_key}
        socket.send(json.dumps({"action": "authenticate", "data": key}))
        _expect(socket, "authorization")
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        _expect(socket, "listening")
        yield StreamProbe(socket)


def await_condition(holds: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Wait until it holds; raises AssertionError with the complaint after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(complaint())
        time.sleep(0.01)


def _expect(socket: ClientConnection, stream: str) -> None:
    answer = json.loads(socket.recv(timeout=DEADLINE_S))
    if answer.get("stream") != stream or answer["data"].get("status") == "unauthorized":
        raise AssertionError(f"expected {stream}, the stream said {answer}")
