"""Run `closectl` as its user does: arguments and CLOSECTL_* settings in, output and an exit code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from typer.main import get_command
from typer.testing import CliRunner

from closectl.app import app

ROLE: Final = "closeflow_operator"
COMMAND: Final = get_command(app)
"""Made once: it takes nine tenths of a call."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


def closectl(*arguments: str, **settings: str) -> Done:
    """Run it with CLOSECTL_<setting> and nothing else of that name."""
    none = {name: None for name in os.environ if name.startswith("CLOSECTL_")}
    chosen = {f"CLOSECTL_{name.upper()}": value for name, value in settings.items()}
    with CliRunner().isolation(env={**none, **chosen}) as (stdout, stderr, _):
        try:
            COMMAND.main(args=arguments, prog_name="closectl")
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        assert isinstance(code, int), code
        return Done(code, stdout.getvalue().decode(), stderr.getvalue().decode())


def process(*arguments: str, **settings: str) -> Done:
    """The same as a process of its own, with a wide screen."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOSECTL_")}
    environment |= {f"CLOSECTL_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "closectl", *arguments]
    done = subprocess.run(
        command, env={**environment, "COLUMNS": "250"}, capture_output=True, text=True, timeout=60, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def answer(*arguments: str, **settings: str) -> Any:
    done = closectl(*arguments, "--json", **settings)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)
