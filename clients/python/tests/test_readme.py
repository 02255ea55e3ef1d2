"""Every Python block of the README runs as it stands, against a server of the contract."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from .fake_close_api import fake_close_api
from .grpc_answers import accepted
from .scripted_grpc import Give, scripted_grpc

README: Final = Path(__file__).parents[1] / "README.md"
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
REST: Final = "http://127.0.0.1:8080"
GRPC: Final = "grpc://127.0.0.1:9090"


def run(block: str, remember: Callable[[int, str], None] = lambda _position, _key: None) -> None:
    """As a module of its own, with the token and the store that the text speaks of."""
    names: dict[str, Any] = {"__name__": "readme", "token": "token", "remember": remember}
    exec(compile(block, README.name, "exec"), names)


def test_the_readme_has_its_blocks() -> None:
    assert len(BLOCKS) == 7
    assert sum(REST in block for block in BLOCKS) == 6
    assert BLOCKS[0].count("\n") == 5


@pytest.mark.parametrize("block", [block for block in BLOCKS if REST in block])
def test_a_block_over_rest_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    remembered: list[tuple[int, str]] = []
    with fake_close_api(5000) as server:
        run(block.replace(REST, server.address), lambda position, key: remembered.append((position, key)))
        accepted_now = {position: len(found) for position, found in server.requests.items()}
    assert set(accepted_now.values()) <= {1}
    printed = capsys.readouterr().out
    if "print" in block:
        assert re.search(r"completed|already being closed by [0-9a-f-]{36}", printed)
    for position, key in remembered:
        assert (position, f'"{key}"') in server.keys


def test_the_block_over_grpc_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in BLOCKS if GRPC in block]
    with scripted_grpc(Give((accepted(),))) as server:
        run(block.replace(GRPC, server.address))
    assert capsys.readouterr().out == "pending\n"


def test_what_the_readme_says_of_defaults_is_so() -> None:
    from closeflow_client import Client

    client = Client(REST)
    assert (client._limits.timeout_s, client._limits.retry_for_s) == (10.0, 30.0)
    client.disconnect()
