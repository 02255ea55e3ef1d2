"""How the command line speaks: a wrong call gets one line, and each command's help shows how it is called."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from io import TextIOWrapper
from typing import Any, Final

import typer
from typer.core import TyperGroup

from closectl.output import errors, visible

_UNHEARD: Final = logging.NullHandler()
"""What libraries would log on the way comes as the error that they raise."""


class OneLineErrors(TyperGroup):
    """What is wrong with the arguments is told in one line, with exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As typer's, but a wrong call gets one line on standard error and exit code 2."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        logging.getLogger().addHandler(_UNHEARD)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # A terminal that lacks a character is no reason to fail.
        try:
            code = run()
        except typer.Abort:
            sys.exit(1)
        except OSError as error:
            errors.print(f"closectl: not everything could be read or written: {visible(str(error))}")
            sys.exit(2)
        except Exception as error:
            if not hasattr(error, "format_message"):  # A ClickException, which typer does not export.
                raise
            sys.exit(_tell(error))
        sys.exit(code or 0)


def _tell(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    where = context.command_path if context is not None else "closectl"
    message = " ".join(error.format_message().split()).rstrip(".")
    errors.print(f"{where}: {visible(message)}; `{where} --help` tells more")
    return int(error.exit_code)


def examples(*calls: str) -> str:
    """The end of a command's help."""
    return "\b\n" + "\n".join(["Examples:" if len(calls) > 1 else "Example:", *(f"  closectl {one}" for one in calls)])
