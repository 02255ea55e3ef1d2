"""Prometheus and promtool, as `make check-monitoring` and the drill of the alerts find them.

    python -m deploy.monitoring.tools     # takes them out of Debian's package, which is not installed

They are kept for all clones, beside the servers of devstack. `PROMTOOL=/path/to/promtool` and
`PROMETHEUS=/path/to/prometheus` are others, for machines without Debian's packages.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from devstack.places import cache_directory

PROGRAMS: Final = ("promtool", "prometheus")
PACKAGE: Final = "prometheus"
_RUN_WITHIN_S: Final = 180
_PATIENT: Final = ("-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")
"""A server that is silent for a while is asked again."""


class NoPrometheus(Exception):
    """A program is not here; the text says what to do."""


def program(name: str) -> str:
    """The path of one of `PROGRAMS`. Raises NoPrometheus."""
    for path in (os.environ.get(name.upper()), str(_kept() / name), shutil.which(name)):
        if path and Path(path).is_file():
            return path
    raise NoPrometheus(
        f"there is no {name}: `make check-monitoring` takes it from Debian's package; elsewhere install Prometheus and "
        f"say where it is, {name.upper()}=/path/to/{name} make check-monitoring"
    )


def install() -> None:
    """Fetch what is found nowhere. Raises NoPrometheus."""
    try:
        for name in PROGRAMS:
            program(name)
        return
    except NoPrometheus:
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise
    with tempfile.TemporaryDirectory() as directory:
        package = _download(Path(directory))
        _run("dpkg-deb", "-x", str(package), directory)
        for name in PROGRAMS:
            there = _kept() / f"{name}.{os.getpid()}"
            shutil.copy2(Path(directory, "usr/bin", name), there)
            there.rename(_kept() / name)  # Another clone may do the same.


def _kept() -> Path:
    kept = cache_directory() / "prometheus"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def _download(directory: Path) -> Path:
    """A new machine has no list of packages yet."""
    directory.chmod(0o755)
    for prepare in ((), ("apt-get", *_PATIENT, "update")):
        try:
            if prepare:
                _run(*prepare)
            _run("apt-get", *_PATIENT, "download", PACKAGE, cwd=directory)
        except NoPrometheus:
            if prepare:
                raise
        else:
            break
    return next(directory.glob("*.deb"))


def _run(*argv: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=_RUN_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        raise NoPrometheus(f"`{shlex.join(argv)}` has not ended within {_RUN_WITHIN_S} s; try again") from None
    if done.returncode != 0:
        raise NoPrometheus(f"`{shlex.join(argv)}` failed: {done.stderr.strip()[-500:]}")


def main() -> int:
    """Install, and say which promtool there is."""
    try:
        install()
        told = subprocess.run((program("promtool"), "--version"), capture_output=True, text=True, check=True)
    except NoPrometheus as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{told.stdout.splitlines()[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
