"""Whatever is typed or set wrongly gets one line that says how to mend it, and never a stack of calls."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from closectl.app import app
from tests.closectl.running import ROLE, Done, closectl, process
from tests.closectl.seeding import REQUESTS, order_id
from tests.conftest import Database as OnTestStack

NOWHERE: Final = {
    "postgres_dsn": "postgresql://me@127.0.0.1:1/nothing",
    "api_url": "http://127.0.0.1:1",
    "kafka_bootstrap_servers": "127.0.0.1:1",
}
HOSTILE: Final = (
    *("", "\udcff", "a\x00b", "\x1b[2J", "x" * 3000, "9" * 5000),
    *(str(2**63), "1 OR 1=1", "1e999999999", "٣"),
)
GOOD: Final = {
    "request_id": str(REQUESTS[1]),
    "close_request_id": str(REQUESTS[1]),
    "position_id": "1",
    "incident_id": "1",
    "order_id": order_id(1),
    "instance_id": "sub-1",
    "topic": "broker-fill",
    "partition": "0",
    "offset": "0",
    "reason": "why",
    "delta": "1",
    "quantity": "1",
    "price": "1",
    "exec_id": "e",
    "account": "main",
    "max_order_qty": "1",
    "directory": "no-directory/of-a-key",
    "key": "no-directory/of-a-key",
    "subject": "portfolio",
}


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    top: Any = typer.main.get_command(app)
    for name, command in (group or top).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS: Final = dict(commands())


def call(path: tuple[str, ...], **changed: str) -> list[str]:
    """The command with what it needs, and with these parameters changed."""
    options, arguments = list[str](), list[str]()
    for one in COMMANDS[path].params:
        needed = one.required or one.name == "max_order_qty"
        value = changed.get(one.name, GOOD.get(one.name) if needed else None)
        if value is None:
            continue
        if one.param_type_name == "argument":
            arguments.append(value)
        else:
            options += [one.opts[0], value]
    return [*path, *options, "--", *arguments]


def one_line(done: Done) -> bool:
    return len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_value_of_any_parameter_is_answered_with_more_than_a_line(
    path: tuple[str, ...], module_database: OnTestStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Where `token key` makes the directories that it is given.
    settings = {**NOWHERE, "postgres_dsn": module_database.dsn(ROLE)}
    names = [one.name for one in COMMANDS[path].params if not getattr(one, "is_flag", False)]
    for name in names:
        for value in HOSTILE:
            done = closectl(*call(path, **{name: value}), **settings)
            assert one_line(done) if done.exit_code else not done.stderr, (name, value, done)
            assert done.exit_code in (0, 1, 2), (name, value, done)
            assert "\x1b" not in done.stderr + done.stdout


def test_every_command_shows_how_it_is_called() -> None:
    for path in COMMANDS:
        done = closectl(*path, "--help")
        assert done.exit_code == 0
        assert f"closectl {' '.join(path)}" in done.stdout.split("Example")[1], path
        assert "│" not in done.stdout


WRONG: Final[dict[str, tuple[Sequence[str], str]]] = {
    "id 0": (["close", "0"], "greater than or equal to 1"),
    "id -1": (["close", "--", "-1"], "greater than or equal to 1"),
    "id 2^63": (["positions", "override", str(2**63), "--reason", "r"], "less than or equal to 9223372036854775807"),
    "id with SQL": (["incidents", "show", "1 OR 1=1"], "valid integer"),
    "key in Cyrillic": (["close", "104", "--key", "ключ"], "'ключ' must be 1 to 100 printable ASCII characters"),
    "huge exponent": (
        ["close", "104", "--quantity", "1e999999999"],
        "--quantity': '1e999999999' must be a decimal number such as 12.5",
    ),
    "NaN": (["close", "104", "--limit-price", "NaN"], "'NaN' must be a decimal number such as 12.5"),
    "nothing to close": (["close", "104", "--quantity", "0"], "'0' must be greater than 0"),
    "too precise": (["close", "104", "--quantity", "0." + "1" * 19], "more than 18 digits after the point"),
    "too large by a digit": (["close", "1", "--quantity", "9" * 16], "below 1000000000000000 in size"),
    "too large": (["positions", "adjust", "1", "--delta", "1" + "0" * 15, "--reason", "r"], "below 1000000000000000"),
    "order type": (["close", "104", "--order-type", "stop"], "'limit', 'market'"),
    "infinite wait": (["close", "104", "--wait", "inf"], "a number of seconds from 0 to 86400"),
    "wait that is no number": (["verify", "--wait", "nan"], "a number of seconds from 0 to 86400"),
    "unknown status": (["list", "--status", "opne"], "'pending'"),
    "empty account": (["halt", "--account", "", "--reason", "r"], "must not be empty"),
    "long reason": (["halt", "--reason", "x" * 2001], "has 2001 characters, and may have 2000"),
    "reason that is no text": (["halt", "--reason", "\udcff"], "'\\udcff' is not UTF-8"),
    "no reason": (["halt"], "closectl halt: Missing option '--reason'; `closectl halt --help` tells more"),
    "unknown command": (["hlat"], "No such command 'hlat'. Did you mean 'halt'?"),
    "unknown option": (["halt", "--why", "r"], "No such option: --why"),
    "time to come": (
        call(("orders", "execution"), at="9999-01-01T00:00:00Z"),
        "must be a time since 1970 that has passed",
    ),
    "place far away": (["dlq", "discard", f"0:{2**63}", "--reason", "r"], "is not PARTITION:OFFSET, such as 0:12"),
    "topic that cannot be": (["dlq", "list", "--topic", "a b"], "'a b' is not a topic, such as submit-order"),
}


@pytest.mark.parametrize(("arguments", "told"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_told_in_one_line(arguments: Sequence[str], told: str) -> None:
    done = closectl(*arguments, **NOWHERE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert one_line(done), done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("given", [b"\xff", b"caf\xe9"])
def test_bytes_that_are_no_text_are_refused_by_the_process_too(given: bytes) -> None:
    done = process("halt", "--reason", os.fsdecode(given), **NOWHERE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert one_line(done)
    assert "is not UTF-8" in done.stderr


def test_an_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "closectl", "close", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
