"""Run `closectl` as its user does: arguments and CLOSECTL_* settings in, output and an exit code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from typer.testing import CliRunner

from closectl.app import app

ROLE: Final = "closeflow_operator"


@dataclass(frozen=True, slots=True)
class Done:
    exit_code: int
    stdout: str
    stderr: str


def closectl(*arguments: str, **settings: str) -> Done:
    """Run it with CLOSECTL_<setting> and nothing else of that name."""
    none = {name: None for name in os.environ if name.startswith("CLOSECTL_")}
    chosen = {f"CLOSECTL_{name.upper()}": value for name, value in settings.items()}
    done = CliRunner().invoke(app, list(arguments), env={**none, **chosen})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


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
