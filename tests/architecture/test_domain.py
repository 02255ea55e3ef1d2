"""The domain calls no clock, makes no ids and does no I/O; services take time from one clock."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from .repository import REPOSITORY, TOOLS, run

DOMAIN: Final = REPOSITORY / "libs" / "closeflow" / "src" / "closeflow" / "domain"
ROOT: Final = "closeflow.domain"
BUILTINS_WITH_EFFECTS: Final = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n",
        "import datetime as dt\n\nNOW = dt.datetime.now(dt.UTC)\n",
        "from datetime import date\n\nTODAY = date.today()\n",
        "from uuid import uuid4\n\nID = uuid4()\n",
        "import uuid\n\nID = uuid.uuid1()\n",
    ],
)
def test_ruff_refuses_clocks_and_new_ids(text: str) -> None:
    checked = run(TOOLS / "ruff", "check", "--no-cache", "--stdin-filename", DOMAIN / "planted.py", "-", text=text)
    assert checked.returncode == 1
    assert "TID251" in checked.stdout


@pytest.mark.parametrize("service", ["order-submitter", "fill-processor", "broker-gateway", "close-api", "reconciler"])
@pytest.mark.parametrize(
    "text",
    [
        "import time\n\nNOW = time.monotonic()\n",
        "from time import monotonic\n\nNOW = monotonic()\n",
        "import asyncio\n\n\nasync def wait() -> None:\n    await asyncio.sleep(1)\n",
        "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n",
    ],
)
def test_ruff_lets_services_take_time_from_one_clock_only(service: str, text: str) -> None:
    planted = REPOSITORY / "services" / service / "src" / service.replace("-", "_") / "planted.py"
    checked = run(TOOLS / "ruff", "check", "--no-cache", "--stdin-filename", planted, "-", text=text)
    assert (checked.returncode, "TID251" in checked.stdout) == (1, True)


def test_ruff_lets_the_time_be_an_argument() -> None:
    text = (
        '"""Planted."""\n\nfrom datetime import datetime\n\n\n'
        "def _later(now: datetime, then: datetime) -> bool:\n    return now > then\n"
    )
    checked = run(TOOLS / "ruff", "check", "--no-cache", "--stdin-filename", DOMAIN / "planted.py", "-", text=text)
    assert checked.returncode == 0, checked.stdout


def test_no_function_of_it_uses_a_builtin_with_effects() -> None:
    used = [
        f"{file.name}:{node.lineno} {node.id}"
        for file in sorted(DOMAIN.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name) and node.id in BUILTINS_WITH_EFFECTS
    ]
    assert used == []


@pytest.mark.parametrize(
    ("module", "other"),
    [("sending.send_check", "close.plan_order"), ("close.plan_order", "sending.send_check")],
)
def test_the_last_check_before_the_wire_and_the_planner_do_not_know_each_other(module: str, other: str) -> None:
    """What one of them gets wrong, the other has to catch; neither may reach the other by way of a third."""
    found = imported(f"{ROOT}.{module}")
    assert f"{ROOT}.orders.status" in found, "what is imported is followed"
    assert f"{ROOT}.{other}" not in found


def imported(module: str) -> set[str]:
    """The module and every module of the domain that it imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in found or file is None:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                waiting += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [one.name for one in node.names]
    return found


def _file(module: str) -> Path | None:
    """Where a module or package of the domain is; None for anything else."""
    if not module.startswith(f"{ROOT}."):
        return None
    path = DOMAIN.joinpath(*module.removeprefix(f"{ROOT}.").split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.exists()), None)
