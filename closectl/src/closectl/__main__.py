"""Run the command line: `closectl` or `python -m closectl`."""

from __future__ import annotations

import sys

import structlog

from closectl.app import app


def main() -> None:
    """Warnings of ours go to standard error: what a command prints may be JSON that a machine reads."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    app(prog_name="closectl")


if __name__ == "__main__":
    main()
