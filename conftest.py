"""Imported before any test: pytest would otherwise take the directories of these names for the packages themselves.

Where CI is set, a test that is skipped has failed: whatever is missing there is missing by mistake.

`make test` runs four processes (pytest-xdist), because most tests wait for servers: on two cores that takes 0.87 of
the time that three take, and three take 0.85 of that of two. The tests of the whole system break their servers: two
halves of them run side by side, each on servers of its own, with the first half those that kill Kafka. Those that
share topics stay in one process.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Final, TypeVar

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import closectl
import devstack

__all__ = ["closectl", "devstack"]

STRICT: Final = os.environ.get("CI", "").lower() not in ("", "0", "false")
HERE: Final = Path(__file__).parent
TOGETHER: Final = (
    ("tests/kafka/test_outages", *(f"tests/system/test_{letter}" for letter in "abcd")),
    ("tests/system",),
    ("tests/examples",),  # Long, and mostly waiting: at the end nothing would run beside them.
    ("tests/pipeline", "tests/failover"),
    ("tests/closectl", "tests/kafka", "tests/storage"),
    ("devstack",),
)
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return failed_if_skipped((yield))


def failed_if_skipped(report: Report) -> Report:
    """The report, as a failure if CI is set and it says skipped. An expected failure (xfail) is not a skip."""
    if STRICT and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure where CI is set: {report.longrepr}"
    return report


def _together(place: str) -> str:
    """What of this file or test stays in one process, and comes in this order."""
    return next((str(n) for n, where in enumerate(TOGETHER) if place.startswith(where)), f"9 {place}")


class Scheduler(LoadScopeScheduling):
    """Give the processes one group of tests after the other (--dist loadgroup, which pytest 9.2 broke)."""

    def _split_scope(self, nodeid: str) -> str:
        return _together(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    return Scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of pytest-xdist the longest groups come first, the others fill up what is left."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _together(item.path.relative_to(HERE).as_posix())[0])
