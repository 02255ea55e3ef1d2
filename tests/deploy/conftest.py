"""The system of compose.yaml, started once for all tests here, with a broker that holds its positions."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from deploy.compose.project import Project, always, require_docker
from tests.deploy.closing import Desk

EACH: Final = 100
CONTAINERS: Final = (
    "order-submitter",
    "fill-processor",
    "broker-gateway",
    "close-api",
    "reconciler",
    "connect",
    "kafka",
    "postgres",
    "broker-simulator",
)


def symbols(number: int) -> list[str]:
    """The hundred stocks that are closed while container `number` is killed; the last ones are for after a restart."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [f"T{letters[number]}{letters[n // 26]}{letters[n % 26]}" for n in range(EACH)]


def tell(line: str) -> None:
    """Past pytest's capture: these tests take minutes, and their figures are what one wants of them."""
    sys.__stdout__.write(f"{line}\n")  # type: ignore[union-attr] # Only None where Python has no terminal at all.
    sys.__stdout__.flush()  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def desk() -> Iterator[Desk]:
    require_docker()
    with tempfile.TemporaryDirectory() as directory:
        positions = Path(directory) / "positions.csv"
        lines = ["account_id,symbol,asset_type,quantity,multiplier,currency"]
        lines += [f"main,{one},stock,9,1,USD" for n in range(len(CONTAINERS) + 1) for one in symbols(n)]
        positions.write_text("\n".join(lines) + "\n")
        positions.chmod(0o644)
        Path(directory).chmod(0o755)
        project = Project("closeflow-test-deploy", {"POSITIONS_CSV": str(positions)})
        project.down(and_volumes=True)
        try:
            made = Desk(project, Path(directory))
            made.start(positions)
            yield made
        finally:
            always(lambda: project.down(and_volumes=True), tell=tell)
