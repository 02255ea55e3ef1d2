"""What one reads at once stays small."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from .repository import REPOSITORY, tracked_python

FILE_LINES: Final = 400
FUNCTION_LINES: Final = 70


def measured() -> list[Path]:
    """Migrations are history and generated code is its generator's, not code that anybody works on."""
    return [file for file in tracked_python() if not {"versions", "generated"} & {*file.parts}]


def test_no_file_is_long() -> None:
    lengths = {file.relative_to(REPOSITORY): len(file.read_text().splitlines()) for file in measured()}
    assert len(lengths) > 100
    assert {str(file): lines for file, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_long() -> None:
    long = {
        f"{file.relative_to(REPOSITORY)}:{node.lineno} {node.name}": lines
        for file in measured()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}
