"""The last released version, to be run beside this one: its sources, and of its lock the packages that ours has in
another version.

A release is a tag v<major>.<minor>.<patch>, and the newest is also in schemas/released/release, with its commit, for
clones without tags; CLOSEFLOW_RELEASED names another commit instead. Only a clone that has not the history of that
commit cannot run it, and says so.
"""

from __future__ import annotations

import fcntl
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

import pytest

from demo.services import Program
from demo.system import SERVICES

REPOSITORY: Final = Path(__file__).resolve().parents[2]
KEPT: Final = REPOSITORY / "var" / "released"
SCHEMA: Final = "libs/closeflow/src/closeflow/storage/schema"
ASK_FOR_SETTINGS: Final = """
import importlib, sys
from closeflow.settings import ServiceSettings
for name in sys.argv[1:]:
    importlib.import_module(f"{name}.settings")
found = [ServiceSettings]
for one in found:
    found += one.__subclasses__()
    prefix = one.model_config.get("env_prefix")
    if prefix:
        print(*(f"{prefix}{field}".upper() for field in one.model_fields))
"""
CHOSEN: Final = "CLOSEFLOW_RELEASED"
NOTED: Final = "schemas/released/release"


class NoRelease(Exception):
    """It cannot be told what was released, or its sources are not there; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Released:
    """`root` is its tree, `head` its schema's revision; until 0.1.0 close-api was ready on that one alone."""

    name: str
    root: Path
    program: Program
    head: str
    ready_on_its_own_schema_alone: bool


def last_release(repository: Path = REPOSITORY, kept: Path = KEPT) -> Released:
    """Check out the newest release before this commit; what was checked out once is kept in var/."""
    name, commit = _named(repository)
    root = kept / commit[:12]
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:  # Two processes of one run want it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _check_out(repository, commit, root)
        packages = _packages(repository, root, kept)
    sources = os.pathsep.join(map(str, [*packages, *root.glob("*/src"), *root.glob("*/*/src")]))
    program = Program(sources=sources, knows=_settings_of(sources))
    return Released(name, root, program, _head_of(root), not (root / SCHEMA / "fit.py").exists())


def release_or_expected_failure() -> Released:
    """The last release; in a clone that has not its history the test ends here, as one that had to fail."""
    try:
        return last_release()
    except NoRelease as error:
        if os.environ.get(CHOSEN):
            raise
        pytest.xfail(str(error))


def _named(repository: Path) -> tuple[str, str]:
    """The release and its commit, which is in this clone."""
    if chosen := os.environ.get(CHOSEN):
        return chosen, _git(repository, "rev-parse", "--verify", f"{chosen}^{{commit}}")
    tags = _git(repository, "tag", "--merged", "HEAD", "--sort=-v:refname", "--list", "v[0-9]*").split()
    here = _git(repository, "rev-parse", "HEAD")
    for tag in tags:
        commit = _git(repository, "rev-parse", f"{tag}^{{commit}}")
        if commit != here:
            return tag, commit
    try:
        name, commit = (repository / NOTED).read_text().split()
    except (OSError, ValueError) as error:
        raise NoRelease(f"no tag v* is reachable from HEAD, and {NOTED} names no release: {error}") from None
    try:
        return name, _git(repository, "rev-parse", "--verify", f"{commit}^{{commit}}")
    except NoRelease:
        raise NoRelease(
            f"{name} is commit {commit}, which this clone does not have: `git fetch --tags --unshallow`, or name "
            f"another one in {CHOSEN}"
        ) from None


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


def _settings_of(sources: str) -> frozenset[str]:
    """The names of all settings of its services, as variables."""
    services = [one.replace("-", "_") for one in SERVICES]
    told = subprocess.run(
        [sys.executable, "-c", ASK_FOR_SETTINGS, *services],
        env={**os.environ, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(told.stdout.split())


def _head_of(root: Path) -> str:
    (head,) = {
        found[1]
        for file in (root / SCHEMA).glob("*.py")
        if (found := re.search(r'^HEAD: Final = "(\w+)"$', file.read_text(), re.MULTILINE))
    }
    return head


def _packages(repository: Path, root: Path, kept: Path) -> tuple[Path, ...]:
    """A directory with what the release's lock has in another version than ours, to be looked through first."""
    here = _locked(repository / "requirements.lock")
    differing = "".join(text for text in _locked(root / "requirements.lock") if text not in here)
    if not differing:
        return ()
    directory = kept / f"packages-{hashlib.sha256(differing.encode()).hexdigest()[:12]}"
    if not directory.exists():
        making = Path(tempfile.mkdtemp(dir=kept))
        wanted = making / "requirements.txt"
        wanted.write_text(differing)
        install = ["install", "--quiet", "--no-deps", "--require-hashes", "--target", str(making), "-r", str(wanted)]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        making.rename(directory)
    return (directory,)


def _locked(lock: Path) -> list[str]:
    """What pip reads of each package: its version and its hashes."""
    lines = (line for line in lock.read_text().splitlines(keepends=True) if not line.lstrip().startswith("#"))
    return re.split(r"^(?=\S)", "".join(lines), flags=re.MULTILINE)[1:]
