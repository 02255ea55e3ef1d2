"""Log lines, written by a process of their own because logging is set up once per process."""

from __future__ import annotations

import json
import subprocess
import sys

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
