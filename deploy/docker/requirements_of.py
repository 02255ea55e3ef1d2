"""What some packages of this repository need, out of requirements.lock, with the hashes.

    python requirements_of.py services/close-api > close-api.lock     # and what it needs through libs/closeflow
    python requirements_of.py libs services closectl > all.lock       # folders stand for all that is below them
    python requirements_of.py hatchling > build.lock                  # or a package of the lock by name

The lock says of each package which others need it; that is walked backwards. Only the standard library is needed, so
that an image is built with nothing but Python and pip.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "requirements.lock"
SHARED: Final = "libs/closeflow"
_NEEDED_BY: Final = re.compile(r"(?P<name>[\w.-]+)(?: \((?P<folder>[\w./-]+)/pyproject\.toml\))?")


class NotLocked(Exception):
    """Something is asked for that the lock does not have; the text names it."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One package of the lock: its lines with version and hashes, and what needs it."""

    name: str
    lines: str
    packages: frozenset[str]
    """Packages of the lock, by name."""
    folders: frozenset[str]
    """Packages of this repository, by folder."""


def read_lock(text: str) -> dict[str, Requirement]:
    """By name, in the lock's order."""
    found = {}
    for block in re.findall(r"^[a-z0-9].*(?:\n .*)*", text, flags=re.MULTILINE):
        lines, _, via = block.partition("    # via")
        name = re.match(r"[\w.-]+", lines)
        assert name is not None, block
        parents = [one for one in (_NEEDED_BY.fullmatch(line.strip(" #")) for line in via.splitlines()) if one]
        packages = frozenset(one["name"] for one in parents if one["folder"] is None)
        folders = frozenset(one["folder"] for one in parents if one["folder"] is not None)
        found[name[0]] = Requirement(name[0], lines.rstrip() + "\n", packages, folders)
    return found


def required(lock: Mapping[str, Requirement], wanted: Iterable[str]) -> list[Requirement]:
    """Everything that the wanted folders and packages need, directly or through others. Raises NotLocked."""
    asked = [one.strip("/").removeprefix("./") for one in wanted]
    chosen = {one for one in asked if one in lock}
    for folder in (one for one in asked if one not in lock):
        direct = {one.name for one in lock.values() if any(f"{at}/".startswith(f"{folder}/") for at in one.folders)}
        if not direct:
            raise NotLocked(f"requirements.lock has nothing for {folder}: give a package's folder, or make lock")
        chosen |= direct
    while more := {one.name for one in lock.values() if one.packages & chosen} - chosen:
        chosen |= more
    return [one for one in lock.values() if one.name in chosen]


def with_shared(folder: str) -> list[str]:
    """The folder of a service, and that of the library where the service says that it needs it."""
    project = ROOT / folder / "pyproject.toml"
    needs = tomllib.loads(project.read_text())["project"]["dependencies"] if project.exists() else []
    return [SHARED, folder] if "closeflow" in needs else [folder]


def main(arguments: list[str]) -> int:
    """Print the requirements, or with --folders the folders of the packages of ours; 2 where something is unknown."""
    folders = [one for folder in arguments if folder != "--folders" for one in with_shared(folder)]
    if not folders:
        sys.stderr.write("give the folder of a package, such as services/close-api\n")
        return 2
    if "--folders" in arguments:
        sys.stdout.write("".join(f"{one}\n" for one in folders))
        return 0
    try:
        sys.stdout.write(
            "".join(
                one.lines.rstrip().removesuffix("\\").rstrip() + "\n"
                for one in required(read_lock(LOCK.read_text()), folders)
            )
        )
    except NotLocked as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
