"""What the pages that are made from the sources are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .repository import REPOSITORY

DOCS: Final = REPOSITORY / "docs"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table with one line per row."""
    lines = ["|".join(("", *(f" {cell} " for cell in row), "")) for row in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return "\n".join(lines) + "\n"


def link(text: str, file: Path) -> str:
    """A link from a page in docs/ to a file of the repository."""
    return f"[{text}]({os.path.relpath(file, DOCS)})"
