"""The example is killed with SIGKILL again and again while it closes a book, and still closes each position once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from .fake_close_api import FakeCloseApi, fake_close_api

EXAMPLE: Final = Path(__file__).parents[3] / "examples" / "portfolio" / "portfolio.py"


def start(address: str, record: Path, *words: str) -> subprocess.Popen[str]:
    """The program as a process of its own."""
    env = os.environ | {"CLOSEFLOW_ADDRESS": address, "CLOSEFLOW_TOKEN": "token"}
    return subprocess.Popen(
        [sys.executable, EXAMPLE, "ACC", record, *words], env=env, text=True, stdout=subprocess.PIPE
    )


def finish(program: subprocess.Popen[str]) -> str:
    """What it printed; it ended well."""
    printed, _ = program.communicate(timeout=60)
    assert program.returncode == 0, printed
    return printed


class Killing:
    """Kills the program in the middle of the call with the number `at`: after its effect, before its answer."""

    def __init__(self, server: FakeCloseApi, at: int) -> None:
        self._server, self._at = server, server.calls + at
        self._dead = threading.Event()
        self.reached = threading.Event()
        server.before_answer = self._hold

    def kill(self, program: subprocess.Popen[str]) -> None:
        """Once the call has had its effect."""
        assert self.reached.wait(30), "the call was not made"
        program.kill()
        program.communicate()
        self._dead.set()
        assert program.returncode == -9

    def _hold(self) -> None:
        if self._server.calls >= self._at:
            self.reached.set()
            self._dead.wait(30)


def assert_closed_once(server: FakeCloseApi, record: Path) -> None:
    """Every position has one request, accepted under the key of the record, and the record names it."""
    book = json.loads(record.read_text())
    assert {position: len(found) for position, found in server.requests.items()} == dict.fromkeys(server.positions, 1)
    assert book["requests"] == {
        str(position): found[0]["close_request_id"] for position, found in server.requests.items()
    }
    assert {key for _, key in server.keys} == {f'"{book["batch_key"]}/{n}"' for n in server.positions}


def test_a_book_is_closed_and_followed(tmp_path: Path) -> None:
    with fake_close_api(100) as server:
        printed = finish(start(server.address, tmp_path / "book.json", "follow"))
        assert_closed_once(server, tmp_path / "book.json")
    lines = printed.splitlines()
    assert lines == [*(f"{n} completed" for n in range(1, 101)), "100 of 100 closes are accepted"]


def test_a_call_that_had_its_effect_before_the_kill_is_found_again(tmp_path: Path) -> None:
    record = tmp_path / "book.json"
    with fake_close_api(100) as server:
        for call in (1, 1, 3, 2, 1):
            killing = Killing(server, call)
            killing.kill(start(server.address, record))
        server.before_answer = lambda: None
        before = sum(map(len, server.requests.values()))
        assert 0 < before < 100
        finish(start(server.address, record))
        assert_closed_once(server, record)


@pytest.mark.parametrize("round_", range(3))
def test_kills_at_any_moment_change_nothing(tmp_path: Path, round_: int) -> None:
    """Also before the record is there, while it is written, and between two calls."""
    record, kills = tmp_path / "book.json", 0
    with fake_close_api(100) as server:
        delay_s = 0.03 + 0.011 * round_
        while True:
            program = start(server.address, record)
            with suppress(subprocess.TimeoutExpired):
                program.wait(delay_s)
                break
            program.kill()
            program.communicate()
            kills += program.returncode == -9
            delay_s *= 1.3
        finish(program)
        assert_closed_once(server, record)
    assert kills >= 3


def test_what_is_refused_is_told_and_asked_for_again(tmp_path: Path) -> None:
    record = tmp_path / "book.json"
    with fake_close_api(10) as server:
        server.close_position(3, '"somebody else"')
        for _ in range(2):
            program = start(server.address, record)
            printed, _ = program.communicate(timeout=30)
            assert program.returncode == 1
            assert "position_already_closing" in printed
            assert "9 of 10 closes are accepted" in printed
    assert len(server.requests[3]) == 1


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
