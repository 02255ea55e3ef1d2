"""Virtual environments beside the project's own, for what only this bench needs: one for each lock file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from demo.system import REPOSITORY

PLACE: Final = REPOSITORY / ".venv-bench"
TOOLS: Final = Path(__file__).with_name("requirements.lock")
"""DBOS, Temporal with its server, and py-spy."""
USUAL: Final = Path(__file__).parent / "usual" / "requirements.lock"
"""Faust and what the usual wiring stands on."""


def programs(lock: Path) -> Path:
    """The directory of `python` and of the programs of an environment with the packages of `lock`; it is made, or made
    to follow the lock, where it does not."""
    directory = PLACE / lock.parent.name
    stamp = directory / ".installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the packages of {lock.relative_to(REPOSITORY)} into {directory} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
        subprocess.run([str(directory / "bin" / "python"), *install], check=True)
        stamp.write_text(wanted)  # Last, so that an install that was cut off is done again.
    return directory / "bin"
