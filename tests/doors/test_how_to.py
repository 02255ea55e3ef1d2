"""docs/how-to/close-from-your-service.md: every block runs as it stands, and prints what stands below it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from demo.services import free_port

if TYPE_CHECKING:
    from tests.doors.conftest import Desk

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "close-from-your-service.md"
ACCOUNT: Final = "ACC-1"
SYMBOLS: Final = ("AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META", "TSLA", "NFLX", "ORCL")
FIRST: Final = 4711
FILLED: Final = 4715
"""The position whose close is filled at once; nothing is sent for the others while the page is run."""
ANYTHING: Final = "…"
WITHIN_S: Final = 60.0
_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What is run, and what it prints; None where the page does not say."""

    language: str
    text: str
    printed: str | None
    shown_as: str


class Shell:
    """One bash for the whole page, as its reader has one."""

    def __init__(self, directory: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={"PATH": path, "HOME": str(directory), "LANG": "C.UTF-8"},
            text=True,
        )
        self._directory = directory

    def run(self, block: Block) -> str:
        """What the block prints. Fails when it fails, or takes too long."""
        assert self._bash.stdin is not None
        command = block.text
        if block.language == "python":
            (self._directory / "block.py").write_text(block.text)
            command = "python block.py\n"
        ended = f"ended-{time.monotonic_ns()}"
        late = threading.Timer(WITHIN_S, self._bash.kill)
        late.start()
        try:
            self._bash.stdin.write(f"{command}\nresult=$?; echo; echo {ended} $result\n")
            self._bash.stdin.flush()
            printed = "".join(self._until(ended))
        finally:
            late.cancel()
        return printed.strip()

    def _until(self, ended: str) -> Iterator[str]:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            if line.startswith(ended):
                assert line == f"{ended} 0\n"
                return
            yield line
        pytest.fail(f"the block did not end within {WITHIN_S} s")

    def close(self) -> None:
        self._bash.kill()
        self._bash.communicate()


def blocks() -> list[Block]:
    """Those that are run, each with the block right below it."""
    page = PAGE.read_text()
    found = list(_BLOCK.finditer(page))
    made = []
    for at, one in enumerate(found):
        if one[1] in ("sh", "python"):
            below = found[at + 1] if at + 1 < len(found) and found[at + 1].start() == one.end() else None
            shown = below is not None and below[1] in ("text", "json")
            made.append(
                Block(one[1], one[2], below[2] if shown and below else None, below[1] if shown and below else "")
            )
    return made


def agrees(printed: str, shown: str, shown_as: str) -> bool:
    """Whether the page shows what was printed."""
    if shown_as == "json":
        return _same(json.loads(printed), json.loads(shown))
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split(ANYTHING))
    return re.fullmatch(pattern, printed, flags=re.DOTALL) is not None


def _same(found: Any, shown: Any) -> bool:
    if shown == ANYTHING:
        return isinstance(found, str)
    if isinstance(shown, dict) and isinstance(found, dict):
        return shown.keys() == found.keys() and all(_same(found[name], shown[name]) for name in shown)
    if isinstance(shown, list) and isinstance(found, list):
        return len(shown) == len(found) and all(map(_same, found, shown))
    return bool(found == shown and type(found) is type(shown))


@contextmanager
def filling(desk: Desk, position_id: int) -> Iterator[None]:
    """What the rest of the system does with the close of one position, in two statements."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            desk.run(
                "UPDATE close_requests SET status = 'completed', filled_qty = target_qty, submitted_at = now(),"
                " completed_at = now() WHERE position_id = %s AND status = 'pending'",
                position_id,
            )
            desk.run(
                "UPDATE positions SET status = 'closed', quantity = 0, active_close_request_id = NULL,"
                " closed_at = now(), version = version + 1 WHERE id = %s AND status = 'closing' AND EXISTS"
                " (SELECT FROM close_requests r WHERE r.position_id = positions.id AND r.status = 'completed')",
                position_id,
            )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    try:
        yield made
    finally:
        made.close()


def open_book(desk: Desk) -> None:
    """The positions that the page speaks of."""
    desk.run("INSERT INTO accounts (account_id, broker) VALUES (%s, 'sim')", ACCOUNT)
    for position_id, symbol in enumerate(SYMBOLS, FIRST):
        desk.run(
            "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity)"
            " OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, 'stock', 10, 10)",
            position_id,
            ACCOUNT,
            symbol,
        )


def test_the_page_runs_from_its_first_block_to_its_last(desk: Desk, shell: Shell) -> None:
    open_book(desk)
    first, *rest = blocks()
    key = shell.run(first)
    assert agrees(key, first.printed or "", first.shown_as), key
    told = dict(one.split("=", 1) for one in key.splitlines()[-1].split())
    settings = {name.removeprefix("CLOSE_API_"): value for name, value in told.items()}
    ports = free_port(), free_port()
    with desk.api(ports=ports, **settings), filling(desk, FILLED):
        for block in rest:
            here = block.text.replace(":8080", f":{ports[0]}").replace(":9090", f":{ports[1]}")
            printed = shell.run(Block(block.language, here, block.printed, block.shown_as))
            if block.printed is not None:
                assert agrees(printed, block.printed, block.shown_as), f"{block.text}\nprinted\n{printed}"
    accepted = desk.run("SELECT position_id, count(*) FROM close_requests GROUP BY 1 ORDER BY 1")
    assert accepted == [(FIRST + n, 1) for n in range(len(SYMBOLS))]


def test_the_page_shows_what_most_of_its_blocks_print() -> None:
    found = blocks()
    assert len(found) >= 12
    assert {one.language for one in found} == {"sh", "python"}
    assert all(one.printed is not None for one in found)


@pytest.mark.parametrize(
    ("printed", "shown", "shown_as", "same"),
    [
        ("200, replayed: true", "200, replayed: true\n", "text", True),
        ("id 7 done", "id … done\n", "text", True),
        ("id 7 done twice", "id … done\n", "text", False),
        ('{"a": 1, "b": "x"}', '{"b": "…", "a": 1}', "json", True),
        ('{"a": 1}', '{"a": 1, "b": "…"}', "json", False),
        ('{"a": true}', '{"a": 1}', "json", False),
        ('{"a": [1, 2]}', '{"a": [1]}', "json", False),
    ],
)
def test_what_is_printed_is_compared_with_what_is_shown(printed: str, shown: str, shown_as: str, same: bool) -> None:
    assert agrees(printed, shown, shown_as) is same
