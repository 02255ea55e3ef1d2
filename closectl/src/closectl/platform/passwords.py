"""Passwords as they are handed over: a directory with one file for each name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from closectl.output import fail

DIRECTORY: Final[dict[str, Any]] = {"exists": True, "file_okay": False, "readable": True}
"""What an option has to be that names one."""


def of_each(names: Iterable[str], directory: Path) -> dict[str, str]:
    """Passwords by name; each needs its file, because who has none cannot log in."""
    found = {}
    for name in names:
        try:
            found[name] = (directory / name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            fail(f"{directory / name} cannot be read ({why}); give each one's password in a file of its name", code=2)
        if not found[name]:
            fail(f"{directory / name} is empty; put the password into it", code=2)
    return found
