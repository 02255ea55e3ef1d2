"""Signals and exit codes of a service, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SERVICE = """
import asyncio, sys
from decimal import Decimal
from closeflow.run import run_parts, run_service
from closeflow.telemetry import configure_logging

configure_logging("json", "demo")

async def obeys(stop):
    print("started", flush=True)
    await stop.wait()
    print("finished", flush=True)

async def hangs(stop):
    print("started", flush=True)
    await asyncio.Event().wait()

async def adds(stop):
    parts = [Decimal("333333333333333.333333333333333333")] * 3
    print(await asyncio.create_task(total(parts)), flush=True)

async def total(parts):
    return sum(parts)

async def fails(stop):
    print("started", flush=True)
    raise RuntimeError("the database is gone")

async def returns(stop):
    print("started", flush=True)

async def cancels_itself(stop):
    print("started", flush=True)
    raise asyncio.CancelledError

def beside_a_good_part(ending):
    async def serves(stop):
        await run_parts(stop, {"good": stop.wait(), "ending": ending(stop)})
    return serves

part_fails = beside_a_good_part(fails)
part_returns = beside_a_good_part(returns)
part_is_cancelled = beside_a_good_part(cancels_itself)
parts_obey = beside_a_good_part(obeys)

run_service(globals()[sys.argv[1]], stop_deadline_s=float(sys.argv[2]))
"""


def _start(main: str, stop_deadline_s: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, main, str(stop_deadline_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_service_to_finish(sent: signal.Signals) -> None:
    with _start("obeys", 30) as process:
        process.send_signal(sent)
        out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("finished\n", 0)


def test_a_service_that_does_not_stop_in_time_is_cut_short() -> None:
    with _start("hangs", 0.1) as process:
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "stop_cut_short" in err


def test_a_failure_is_logged_and_exits_with_1() -> None:
    with _start("fails", 30) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "service_failed" in err
    assert "the database is gone" in err


@pytest.mark.parametrize(
    ("main", "line", "said"),
    [
        ("returns", "service_ended_unasked", "returned"),
        ("cancels_itself", "service_ended_unasked", "cancelled"),
        ("part_fails", "service_failed", "the database is gone"),
        ("part_returns", "service_failed", "ending returned"),
        ("part_is_cancelled", "service_failed", "ending was cancelled"),
    ],
)
def test_an_end_that_nobody_asked_for_is_one_line_and_exits_with_1(main: str, line: str, said: str) -> None:
    with _start(main, 30) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    (told,) = err.splitlines()
    assert line in told
    assert said in told


def test_parts_that_end_when_they_are_asked_to_end_well() -> None:
    with _start("parts_obey", 30) as process:
        process.terminate()
        out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("finished\n", 0)


def test_a_service_adds_quantities_exactly() -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE, "adds", "30"], capture_output=True, text=True, timeout=30)
    assert done.stdout == "999999999999999.999999999999999999\n"
