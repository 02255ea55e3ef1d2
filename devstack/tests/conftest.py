"""A clone of this program in a directory of its own: tests run it for real and do not touch the state of this one."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Clone:
    """A copy of devstack/ at `root`; its pom differs from ours, so nothing is downloaded for it yet."""

    root: Path

    def run(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return self.python("-m", "devstack", *words, **environment)

    def python(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        known = {**os.environ, "PYTHONPATH": str(self.root / "devstack" / "src")} | environment
        return subprocess.run(
            [sys.executable, *words], env=known, capture_output=True, text=True, timeout=60, check=False
        )

    def programs(self, **scripts: str) -> str:
        """A PATH with nothing but these shell scripts."""
        directory = self.root / "bin"
        directory.mkdir(exist_ok=True)
        for name, script in scripts.items():
            program = directory / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        return str(directory)


def make_clone(root: Path) -> Clone:
    shutil.copytree(SOURCES / "src", root / "devstack" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    pom = (SOURCES / "pom.xml").read_text()
    (root / "devstack" / "pom.xml").write_text(f"{pom}<!-- {root} -->\n")
    return Clone(root)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's: a clone in it keeps its instances, even for root."""
    made = Path(tempfile.mkdtemp(prefix="devstack-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def clone(place: Path) -> Clone:
    return make_clone(place / "clone")
