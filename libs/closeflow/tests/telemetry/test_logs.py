"""Log lines, written by a process of their own because logging is set up once per process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SPEAK = """
import logging, sys
from decimal import Decimal
from uuid import UUID
import structlog
from closeflow.telemetry import configure_logging
configure_logging(sys.argv[1], "fill-processor")
log = structlog.get_logger("x").bind(close_request_id=UUID(int=7))
log.info("update_judged", verdict="Applied", quantity=Decimal("1.50"))
log.debug("not_written")
logging.getLogger("aiokafka").warning("heartbeat %s", "failed")
logging.getLogger("aiokafka").info("not written")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("service_failed")
"""


def _lines(log_format: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SPEAK, log_format], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_has_one_object_per_line_for_our_loggers_and_the_libraries() -> None:
    judged, library, failed = (json.loads(line) for line in _lines("json"))
    assert judged.pop("time").endswith("Z")
    assert judged == {
        "event": "update_judged",
        "level": "info",
        "service": "fill-processor",
        "close_request_id": "00000000-0000-0000-0000-000000000007",
        "verdict": "Applied",
        "quantity": "1.50",
    }
    assert (library["event"], library["level"], library["logger"]) == ("heartbeat failed", "warning", "aiokafka")
    assert failed["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_the_console_format_is_for_people() -> None:
    lines = _lines("console")
    assert "update_judged" in lines[0]
    assert "verdict=Applied" in lines[0]
    assert any("ZeroDivisionError" in line for line in lines)


ODD = """
import sys

import pytest
from datetime import datetime
from enum import Enum
from types import SimpleNamespace
import structlog
from closeflow.telemetry import configure_logging
configure_logging(sys.argv[1], "fill-processor")
log = structlog.get_logger("x")

class Colour(Enum):
    RED = "red"

class Broken:
    def __repr__(self):
        raise RuntimeError("no")
    __str__ = __repr__

class BrokenError(Exception):
    __str__ = Broken.__repr__

circle = {}
circle["itself"] = circle
deep = []
for _ in range(2000):
    deep = [deep]
values = [
    {0: 5, 1: 7}, {b"k": b"\\xff"}, {("a", 1): 1}, {None: 1}, {datetime(2026, 1, 1): 1}, {Broken(): 1}, {Colour.RED: 1},
    b"\\xff\\x00", {1, 2}, frozenset({"a"}), {Broken()}, float("nan"), float("inf"), 2**70, -(2**70), "\\ud800",
    "\\x00", Broken(), circle, deep, Colour.RED, Colour, SimpleNamespace(a=Broken()), object(), ValueError("x"),
]
for value in values:
    log.warning("value_shown", value=value)
    log.bind(value=value).info(value)
try:
    raise BrokenError
except BrokenError as error:
    log.exception("failed", error=error)
    log.error("failed", exc_info=error)
log.error("failed", exc_info=Broken())
log.error("failed", exc_info=ValueError("half \\ud800 a character"))
log.error("failed", exc_info=KeyError("the cause"), big=2**70)
try:
    raise ValueError("half \\ud800 a character")
except ValueError:
    log.error("failed", exc_info=True)
print(len(values) * 2 + 6)
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_value_makes_a_log_call_raise_or_say_nothing(log_format: str) -> None:
    done = subprocess.run([sys.executable, "-c", ODD, log_format], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("value_shown") == (int(done.stdout) - 6) // 2
    assert "KeyError" in done.stderr
    assert "the cause" in done.stderr
    if log_format == "json":
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert len(lines) == int(done.stdout)
        assert lines[0]["value"] == {"0": 5, "1": 7}
        told = [line["exception"][0]["exc_value"] for line in lines[-3:]]
        assert told == ["half \\ud800 a character", "'the cause'", "half \\ud800 a character"]


CLOSED = """
import os, structlog
from closeflow.telemetry import configure_logging
configure_logging("json", "fill-processor")
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)
structlog.get_logger("x").warning("nobody_listens")
print("goes on")
"""


def test_a_standard_error_that_nobody_reads_stops_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, check=False)
    assert done.stdout == "goes on\n"
