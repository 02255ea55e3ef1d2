"""The wall clocks of processes, set while they run: as a host does whose time is wrong or is put right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PRELOAD: Final = Path(__file__).parent / "preload"


class HostClocks:
    """Of the processes that are started as `python -m <module>`, with `environment`, or within `inherited`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(PRELOAD), "HOST_CLOCKS": str(self._directory)}

    @contextmanager
    def inherited(self) -> Iterator[None]:
        """Every process that is started meanwhile has a clock of these."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def shift(self, module: str, seconds: float) -> None:
        """From within a twentieth of a second on, the module's processes see a time so far from the true one."""
        file = self._directory / module
        file.with_suffix(".new").write_text(str(seconds))
        file.with_suffix(".new").replace(file)
