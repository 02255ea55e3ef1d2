"""Java's property files, as far as Kafka's settings need them: one `key=value` a line, `#` comments."""

from collections.abc import Mapping
from pathlib import Path

from devstack.places import write_atomically


def read(path: Path) -> dict[str, str]:
    """The settings of a file; later lines win, as in Java."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, _, value in pairs}


def write(path: Path, settings: Mapping[str, str]) -> None:
    """Replace the file as a whole; a reader sees the old one or the new one."""
    write_atomically(path, "".join(f"{key}={value}\n" for key, value in settings.items()))
