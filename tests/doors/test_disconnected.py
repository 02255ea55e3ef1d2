"""Whoever hangs up waits no longer: his place among those who wait is another's."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import httpx
import pytest

from .conftest import Desk, Running


def watchers(api: Running) -> int:
    lines = httpx.get(f"{api.url}/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("close_api_watchers ")).split()[1]))


def until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


@pytest.mark.parametrize("waiting", ["?wait=60s", "/watch"])
def test_who_hangs_up_waits_no_longer(rest: httpx.Client, api: Running, desk: Desk, waiting: str) -> None:
    (position,) = desk.open_positions(1)
    accepted = rest.post(f"/v1/positions/{position}/close", headers={"Idempotency-Key": "k"})
    call = f"GET /v1/close-requests/{accepted.json()['close_request_id']}{waiting} HTTP/1.1\r\nHost: x\r\n"
    lines = [socket.create_connection(("127.0.0.1", api.http_port)) for _ in range(20)]
    for line in lines:
        line.sendall(f"{call}Authorization: {rest.headers['authorization']}\r\n\r\n".encode())
    until(lambda: watchers(api) == 20, "all wait")
    for line in lines:
        line.close()
    until(lambda: watchers(api) == 0, "nobody waits")
