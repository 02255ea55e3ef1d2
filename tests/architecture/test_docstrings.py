"""What is public says what a caller relies on; the names of tests are sentences and say it themselves."""

from __future__ import annotations

from typing import Final

import pytest

from .repository import TOOLS, run

DOMAIN: Final = "libs/closeflow/src/closeflow/domain"
SAID: Final = '"""A module."""\n\n\n'
CLASS: Final = 'class Order:\n    """An order."""\n\n    def leaves(self) -> int:\n        return 0\n'


def checked(file: str, text: str) -> str:
    """What ruff says of such a file; empty when it has nothing against it."""
    found = run(TOOLS / "ruff", "check", "--no-cache", "--quiet", "--stdin-filename", file, "-", text=text)
    return found.stdout


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        ("D100", f"{DOMAIN}/planted.py", "LOT = 1\n"),
        ("D104", f"{DOMAIN}/planted/__init__.py", "LOT = 1\n"),
        ("D101", f"{DOMAIN}/planted.py", SAID + "class Order:\n    leaves = 0\n"),
        ("D102", f"{DOMAIN}/planted.py", SAID + CLASS),
        ("D103", f"{DOMAIN}/planted.py", SAID + "def leaves() -> int:\n    return 0\n"),
        ("D103", "connect/planted.py", SAID + "async def leaves() -> int:\n    return 0\n"),
        ("D101", "tests/kafka/planted.py", SAID + "class Order:\n    leaves = 0\n"),
    ],
)
def test_what_is_public_and_says_nothing_is_refused(rule: str, file: str, text: str) -> None:
    assert rule in checked(file, text)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (f"{DOMAIN}/planted.py", SAID + "def _leaves() -> int:\n    return 0\n"),
        (f"{DOMAIN}/planted.py", SAID + CLASS.replace("leaves", "_leaves")),
        ("tests/kafka/test_planted.py", SAID + "def test_nothing_is_left() -> None:\n    assert True\n"),
    ],
)
def test_what_is_private_and_tests_are_not(file: str, text: str) -> None:
    assert checked(file, text) == ""
