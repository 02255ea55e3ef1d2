"""The command line: `python -m devstack up|down|status|logs|reset`."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from devstack import control
from devstack.errors import StackError
from devstack.places import instance_directory
from devstack.state import PART_NAMES, PartState

INTRODUCTION: Final = """\
Real servers without containers: PostgreSQL, Kafka and Connect with Debezium, as processes on 127.0.0.1.
The first `up` downloads them with Maven (about 100 MB, kept for all clones); later ones take seconds.

  up        start the instance, or what of it does not run, and wait until it is ready
  status    what runs and where; what died, when, by which signal, and how to mend it
  logs      the last lines of each part's log; more with --follow
  down      stop it; its data stays
  reset     stop it and wipe its data, and choose new ports at the next start
"""
EXAMPLES: Final = """\
Instances are independent, with ports and data of their own. `dev` is yours, `demo` and `test` belong to the programs
of these names.

  python -m devstack up                        the instance dev
  python -m devstack up --instance other       one more beside it
  python -m devstack status --json             addresses, passwords and pids for a program
  python -m devstack logs connect --follow

Exit codes: 0 good; 1 something is broken, or did not start; 2 this machine lacks something (the line says what);
3 (status) it is not running.
"""


def parser() -> argparse.ArgumentParser:
    """The commands; each sets `run`, which takes the parsed options and returns the exit code."""
    made = argparse.ArgumentParser(
        prog="python -m devstack",
        description=INTRODUCTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="up|down|status|logs|reset")
    for name, (run, text) in COMMANDS.items():
        command = commands.add_parser(name, description=text, help=text)
        command.set_defaults(run=run)
        command.add_argument("--instance", default="dev", metavar="NAME", help="which one (default: dev)")
        command.add_argument(
            "--json", action="store_true", help="print the result as JSON; progress goes to standard error"
        )
        if name == "up":
            command.add_argument(
                "--secure", action="store_true", default=None, help="make a new instance with TLS and logins everywhere"
            )
        if name == "logs":
            command.add_argument("part", nargs="?", choices=(*PART_NAMES, "supervisor"), help="only this one")
            command.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    return made


def say(line: str) -> None:
    """A line of progress on standard error, with the time; standard output is for what was asked for."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def run_up(options: argparse.Namespace) -> int:
    """Start what does not run; returns once all of it is ready, with the exit code of `status`."""
    started = time.monotonic()
    control.up(options.instance, say, secure=options.secure)
    say(f"instance {options.instance} is up, {time.monotonic() - started:.1f} s")
    return run_status(options)


def run_down(options: argparse.Namespace) -> int:
    """Stop it all; the data stays."""
    started = time.monotonic()
    control.down(options.instance, say)
    say(f"instance {options.instance} is down, {time.monotonic() - started:.1f} s")
    return print_if_json(options)


def run_reset(options: argparse.Namespace) -> int:
    """Stop it all and remove the data."""
    control.reset(options.instance, say)
    return print_if_json(options)


def print_if_json(options: argparse.Namespace) -> int:
    """The status as JSON where `--json` was given; returns 0."""
    if options.json:
        print(json.dumps(control.status(options.instance).as_json(), indent=1))
    return 0


def run_status(options: argparse.Namespace) -> int:
    """0 when it runs, 3 when it is stopped or was never there, 1 when a part of it is not well."""
    found = control.status(options.instance)
    if options.json:
        print_if_json(options)
    else:
        print_status(found)
    return {"running": 0, "stopped": 3, "absent": 3}.get(found.state, 1)


def print_status(found: control.Status) -> None:
    """Where each part is and how it is, and how to mend what failed."""
    print(f"instance {found.instance}: {found.state}")
    if found.stack is not None and found.parts:
        where = {
            "postgres": found.stack.admin_dsn,
            "kafka": found.stack.kafka_bootstrap_servers,
            "connect": found.stack.connect_url,
        }
        for name, part in found.parts.items():
            took = f"{part.seconds:>5.1f} s" if part.seconds is not None and part.state is PartState.READY else " " * 7
            pid = f"pid {part.pid}" if part.pid is not None else ""
            print(f"  {name:<9} {part.state:<9} {took}  {pid:<12} {where[name]}")
        print(f"  data {found.stack.data_dir}")
        if found.stack.secrets is not None:
            print(f"  secure: TLS and logins on every link, secrets in {found.stack.secrets}")
            print(f"  Kafka for administrators, who show a certificate: {found.stack.kafka_administrators}")
    for line in found.explanation:
        print(line)


def run_logs(options: argparse.Namespace) -> int:
    """Print the last lines of each log, or of one part's, or follow them. Raises StackError where there is none."""
    logs = instance_directory(options.instance) / "logs"
    names = [options.part] if options.part else [*PART_NAMES, "supervisor"]
    files = [str(logs / f"{name}.log") for name in names if (logs / f"{name}.log").exists()]
    if options.json:
        print(json.dumps(files))
        return 0
    if not files:
        raise StackError(f"instance {options.instance} has no logs yet: make up INSTANCE={options.instance}")
    return subprocess.call(["tail", "-n", "40", *(["-F"] if options.follow else []), *files])


Command = Callable[[argparse.Namespace], int]
COMMANDS: Final[dict[str, tuple[Command, str]]] = {
    "up": (run_up, "start the instance, or what of it does not run"),
    "down": (run_down, "stop the instance; its data stays"),
    "status": (run_status, "what runs and where, what died, and how to mend it"),
    "logs": (run_logs, "the last lines of each part's log"),
    "reset": (run_reset, "stop the instance and wipe its data"),
}


def main() -> int:
    """Run a command of the command line; an error that says how to mend it is one line on standard error."""
    options = parser().parse_args()
    try:
        return int(options.run(options))
    except StackError as error:
        print(f"devstack: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # Whoever read our output has seen enough, `head` for example.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        whose = "; it belongs to another user: run this as that one" if isinstance(error, PermissionError) else ""
        print(f"devstack: {error.strerror or error}: {error.filename or ''}{whose}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("devstack: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
