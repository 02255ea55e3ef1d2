"""What the client's README says and the portfolio service does, against the real close-api."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from clients.python.tests.test_readme import BLOCKS, GRPC, REST
from closeflow_client import Client
from demo.services import free_port

from .conftest import MINE, Desk, Running

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "portfolio" / "portfolio.py"
FOLLOWS: Final = ("client.wait(", "client.watch(")


@contextmanager
def nothing_stays_pending(desk: Desk, running: Running) -> Iterator[None]:
    """There is no broker here: what is accepted is cancelled, so that those who wait for an end see one."""
    over = threading.Event()

    def cancel() -> None:
        with Client(running.url, desk.issuer.token(MINE)) as client:
            while not over.wait(0.1):
                for one in client.list(status="pending"):
                    client.cancel(one.close_request_id)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(number: int, desk: Desk, api: Running, capsys: pytest.CaptureFixture[str]) -> None:
    block = BLOCKS[number].replace(REST, api.url).replace(GRPC, f"grpc://{api.grpc_target}")
    desk.run(
        "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity) OVERRIDING SYSTEM VALUE"
        " SELECT n, %s, 'S' || n, 'stock', 10, 10 FROM generate_series(4711, 4718) n",
        MINE,
    )
    names: dict[str, Any] = {
        "__name__": "readme",
        "token": desk.issuer.token(MINE),
        "remember": lambda _position, _key: None,
    }
    code = compile(block, f"block {number}", "exec")
    if any(one in block for one in FOLLOWS):
        with nothing_stays_pending(desk, api):
            exec(code, names)
    else:
        exec(code, names)
    assert ("print" in block) == (capsys.readouterr().out != "")
    assert (desk.requests() > 0) == ("client.close" in block)


@pytest.mark.parametrize("door", ["rest", "grpc"])
@pytest.mark.timeout(300)
def test_a_book_is_closed_once_through_kills_of_both_sides(door: str, desk: Desk, tmp_path: Path) -> None:
    """The portfolio service is killed while it runs, and every other time close-api too."""
    positions, record = desk.open_positions(300), tmp_path / "book.json"
    ports = (free_port(), free_port())
    address = f"http://127.0.0.1:{ports[0]}" if door == "rest" else f"grpc://127.0.0.1:{ports[1]}"
    environment = os.environ | {"CLOSEFLOW_ADDRESS": address, "CLOSEFLOW_TOKEN": desk.issuer.token(MINE)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, EXAMPLE, MINE, record], env=environment)

    for kill in range(6):
        with desk.api(ports=ports) as running:
            program, before = start(), desk.requests()
            until = time.monotonic() + 30
            while desk.requests() < before + 7 and time.monotonic() < until:
                time.sleep(0.001)
            victim = program if kill % 2 else running.service.process
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            program.kill()
            assert program.wait() == -signal.SIGKILL, "it was over before it was killed"
    with desk.api(ports=ports):
        program = start()
        assert program.wait(60) == 0
    rows = desk.run("SELECT position_id, idempotency_key, id FROM close_requests")
    book = json.loads(record.read_text())
    assert sorted(position for position, _, _ in rows) == positions
    assert book["requests"] == {str(position): str(request_id) for position, _, request_id in rows}
    assert {key for _, key, _ in rows} == {f"{book['batch_key']}/{position}" for position in positions}
