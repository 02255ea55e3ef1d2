"""Checks what the stack needs from the machine, before anything is started."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from devstack.errors import EnvironmentLacking

JAVA_AT_LEAST: Final = 17  # Kafka 4 brokers do not start on less.
FREE_BYTES_AT_LEAST: Final = 2 * 1024**3
PLATFORMS: Final = {
    ("Linux", "x86_64"): "linux-amd64",
    ("Linux", "aarch64"): "linux-arm64v8",
    ("Darwin", "x86_64"): "darwin-amd64",
    ("Darwin", "arm64"): "darwin-arm64v8",
}


def postgres_platform(system: str | None = None, machine: str | None = None) -> str:
    """The suffix of the artifact with PostgreSQL's binaries for this machine."""
    key = (system or platform.system(), machine or platform.machine())
    if key not in PLATFORMS:
        known = ", ".join(sorted(PLATFORMS.values()))
        raise EnvironmentLacking(
            f"the embedded stack has no PostgreSQL for {' '.join(key)}: it runs on {known}; elsewhere use containers"
        )
    return PLATFORMS[key]


def find_java() -> str:
    """The `java` of JAVA_HOME, else of PATH, if it is new enough."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    where = f"JAVA_HOME={home}" if home else "PATH"
    install = f"install a JRE {JAVA_AT_LEAST} or newer (Debian: apt-get install openjdk-17-jre-headless)"
    if java is None:
        raise EnvironmentLacking(f"no Java in {where}: {install}, or point JAVA_HOME at one")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if said.returncode != 0 or version is None:
        raise EnvironmentLacking(f"{java} does not run (`java -version` ended with {said.returncode}): {install}")
    if int(version[1]) < JAVA_AT_LEAST:
        raise EnvironmentLacking(
            f"{java} is Java {version[1]}, Kafka needs {JAVA_AT_LEAST}: {install} and point JAVA_HOME at it"
        )
    return java


def find_maven() -> str:
    """The path of `mvn`. Raises EnvironmentLacking, which says how to install it."""
    maven = shutil.which("mvn")
    if maven is None:
        raise EnvironmentLacking(
            "no Maven ('mvn') in PATH, which fetches Kafka, Connect and PostgreSQL once: install it "
            "(Debian: apt-get install maven)"
        )
    return maven


def check_disk(directory: Path, at_least: int = FREE_BYTES_AT_LEAST) -> None:
    """Refuse to start on a nearly full disk, where Kafka and PostgreSQL would end in the middle of a write."""
    free = shutil.disk_usage(directory).free
    if free < at_least:
        raise EnvironmentLacking(
            f"only {free / 1024**3:.1f} GiB free for {directory}, the stack needs {at_least / 1024**3:.0f} GiB: "
            "make room there"
        )
