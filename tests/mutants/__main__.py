"""Apply each mutant to a copy of the repository and see the named tests fail: `make mutants`, or
`python -m tests.mutants [part of an idea ...]`. Exit 0 when every mutant was killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import devstack
from tests.architecture.repository import REPOSITORY, run
from tests.mutants.table import MUTANTS, Mutant

TIMEOUT_S: Final = 900
TESTS_FAILED: Final = 1
"""pytest's exit code; others say that the tests could not be run, which proves nothing."""


class Copy:
    """A copy of what is under version control, with the servers of this clone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0"):
            if name and (REPOSITORY / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes((REPOSITORY / name).read_bytes())
        # Before the installed packages, so that tests and the services they start are those of the copy. All but the
        # one that knows the servers: a clone's belong to it alone, and another would start some of its own.
        sources = [root, *sorted({*root.glob("*/src"), *root.glob("*/*/src")} - {root / "devstack" / "src"})]
        path = os.pathsep.join(map(str, sources))
        self._environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def test(self, tests: Sequence[str]) -> tuple[int, str]:
        """pytest's exit code and output."""
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-rf", *tests],
                cwd=self.root,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, f"no result within {TIMEOUT_S} s"
        return finished.returncode, finished.stdout + finished.stderr


def main(words: Sequence[str]) -> int:
    chosen = [one for one in MUTANTS if not words or any(word in one.idea for word in words)]
    if not chosen:
        print(f"no mutant is named by {' '.join(words)}; there are:", *(f"  {one.idea}" for one in MUTANTS), sep="\n")
        return 2
    devstack.up("test")
    survived: list[str] = []
    with tempfile.TemporaryDirectory(prefix="closeflow-mutants-") as directory:
        copy = Copy(Path(directory))
        healthy = sorted({test for one in chosen for test in one.killed_by})
        print(f"{len(chosen)} mutants; first the {len(healthy)} tests on the code as it is ...", flush=True)
        code, output = copy.test(healthy)
        if code != 0:
            print(output)
            print("these tests fail without any mutant; nothing was shown")
            return 2
        for number, one in enumerate(chosen, 1):
            started = time.monotonic()
            problem = _problem(copy, one)
            verdict = "killed" if problem is None else "SURVIVED"
            print(f"{number:3} {verdict:8} {time.monotonic() - started:5.1f} s  {one.idea}", flush=True)
            if problem is not None:
                print(problem)
                survived.append(one.idea)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants killed" + _listed(survived))
    return 1 if survived else 0


def _listed(survived: Sequence[str]) -> str:
    return "".join(f"; survived: {', '.join(survived)}" for _ in survived[:1])


def _problem(copy: Copy, mutant: Mutant) -> str | None:
    """Why the mutant counts as alive, or None."""
    file = copy.root / mutant.file
    text = file.read_text()
    if text.count(mutant.before) != 1:
        return f"its text stands {text.count(mutant.before)} times in {mutant.file}"
    file.write_text(text.replace(mutant.before, mutant.after))
    try:
        code, output = copy.test(mutant.killed_by)
    finally:
        file.write_text(text)
    if code != TESTS_FAILED:
        return f"pytest ended with {code}:\n{output[-2000:]}"
    missed = [test for test in mutant.killed_by if not any(test in failed for failed in _failed(output))]
    return f"not noticed by {', '.join(missed)}\n{output[-2000:]}" if missed else None


def _failed(output: str) -> Iterator[str]:
    yield from re.findall(r"^FAILED (\S+)", output, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
