"""The last released version, to be run beside this one: its sources, and a Python with what its lock names.

A release is a tag v<major>.<minor>.<patch>; CLOSEFLOW_RELEASED names another commit instead. A clone without tags
cannot tell what is released: that is an error and not a skip, because the test is about it.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from demo.services import Program

REPOSITORY: Final = Path(__file__).resolve().parents[2]
KEPT: Final = REPOSITORY / "var" / "released"
CHOSEN: Final = "CLOSEFLOW_RELEASED"


class NoRelease(Exception):
    """It cannot be told what was released; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Released:
    """`root` is its whole tree, `head` the revision of its schema."""

    name: str
    root: Path
    program: Program
    head: str


def last_release(repository: Path = REPOSITORY, kept: Path = KEPT) -> Released:
    """Check out the newest release before this commit; what was checked out once is kept in var/."""
    name = os.environ.get(CHOSEN) or _newest_tag(repository)
    commit = _git(repository, "rev-parse", "--verify", f"{name}^{{commit}}")
    root = kept / commit[:12]
    if not root.exists():
        _check_out(repository, commit, root)
    sources = [*root.glob("*/src"), *root.glob("*/*/src")]
    program = Program(python=_python(repository, root, kept), sources=os.pathsep.join(map(str, sources)))
    return Released(name, root, program, _head_of(root))


def _newest_tag(repository: Path) -> str:
    tags = _git(repository, "tag", "--merged", "HEAD", "--sort=-v:refname", "--list", "v[0-9]*").split()
    if not tags:
        raise NoRelease(
            "no tag v* is reachable from HEAD, so it is not known what was released: `git fetch --tags --unshallow` "
            f"(a shallow clone has none), or name a commit in {CHOSEN}"
        )
    here = _git(repository, "rev-parse", "HEAD")
    before = [tag for tag in tags if _git(repository, "rev-parse", f"{tag}^{{commit}}") != here]
    return (before or tags)[0]


def _git(repository: Path, *arguments: str) -> str:
    ended = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise NoRelease(f"git {arguments[0]} failed: {ended.stderr.strip()}; run this in a clone, with its tags")
    return ended.stdout.strip()


def _check_out(repository: Path, commit: str, root: Path) -> None:
    archive = subprocess.run(["git", "-C", str(repository), "archive", commit], capture_output=True, check=True).stdout
    root.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=root.parent))
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(making, filter="data")
    making.chmod(0o755)
    making.rename(root)


def _head_of(root: Path) -> str:
    (head,) = {
        found[1]
        for file in (root / "libs/closeflow/src/closeflow/storage/schema").glob("*.py")
        if (found := re.search(r'^HEAD: Final = "(\w+)"$', file.read_text(), re.MULTILINE))
    }
    return head


def _python(repository: Path, root: Path, kept: Path) -> str:
    """This Python, if it has every package in the version that the release was locked to; else one that has."""
    lock = root / "requirements.lock"
    if _pins(lock) <= _pins(repository / "requirements.lock"):
        return sys.executable
    venv = kept / f"venv-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = venv / "bin" / "python"
    if not (venv / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        install = ["install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
        subprocess.run([str(python), "-m", "pip", *install], check=True)
        (venv / ".installed").touch()
    return str(python)


def _pins(lock: Path) -> set[str]:
    """Of a lock, `name==version`."""
    return set(re.findall(r"^([a-z0-9][^\s;]*==[^\s;]+)", lock.read_text(), re.MULTILINE))
