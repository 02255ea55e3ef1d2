"""The readers of a release, kept as they were: the models of the topics with all that they import, and nothing else.

A test lets them read what today's writers write, and today's readers what theirs write.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = "closeflow_released"
READ_BY: Final = ("closeflow.contracts.topics", "closeflow.contracts.codec", "closeflow.contracts.cloudevents")
_OURS: Final = re.compile(r"^(\s*from )closeflow\.", re.MULTILINE)


def freeze_readers(sources: Path, into: Path) -> list[str]:
    """Write the modules that `READ_BY` needs of the package `closeflow` in `sources` below `into`, as a package of
    another name; what was there of an older release goes. Returns their names."""
    shutil.rmtree(into / PACKAGE, ignore_errors=True)
    modules = sorted(_needed(sources))
    for module in modules:
        path = into / PACKAGE / Path(*module.split(".")[1:]).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_OURS.sub(rf"\1{PACKAGE}.", _source(sources, module).read_text()))
    return modules


def _needed(sources: Path) -> set[str]:
    found: set[str] = set()
    waiting = list(READ_BY)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(_source(sources, module).read_text())
    return found


def _imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("closeflow."):
            yield node.module


def _source(sources: Path, module: str) -> Path:
    return (sources / Path(*module.split("."))).with_suffix(".py")
