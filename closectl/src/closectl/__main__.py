"""Run the command line: `closectl` or `python -m closectl`."""

from __future__ import annotations

import logging

from closectl.app import app
from closeflow.telemetry import LogFormat, configure_logging


def main() -> None:
    """Warnings go to standard error: what a command prints may be JSON that a machine reads."""
    configure_logging(LogFormat.CONSOLE, "closectl", level=logging.WARNING)
    app(prog_name="closectl")


if __name__ == "__main__":
    main()
