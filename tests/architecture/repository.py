"""Where the sources are, and how a tool is run on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = Path(sys.executable).parent

Finished = subprocess.CompletedProcess[str]


def run(
    *words: str | Path, cwd: Path = REPOSITORY, text: str | None = None, env: Mapping[str, str] | None = None
) -> Finished:
    """A finished process with what it wrote; `text` is its input."""
    return subprocess.run(words, cwd=cwd, input=text, env=env, capture_output=True, text=True, timeout=60, check=False)


def tracked_python() -> list[Path]:
    """Every Python file under version control that is still there."""
    names = run("git", "ls-files", "-z", "*.py").stdout.split("\0")
    return [REPOSITORY / name for name in names if name and (REPOSITORY / name).exists()]
