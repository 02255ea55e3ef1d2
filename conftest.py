"""Imported before any test: pytest would otherwise take the directories of these names for the packages themselves.

Where CI is set, a test that is skipped has failed: whatever is missing there is missing by mistake.
"""

import os
from collections.abc import Generator
from typing import Final, TypeVar

import pytest

import closectl
import devstack

__all__ = ["closectl", "devstack"]

STRICT: Final = os.environ.get("CI", "").lower() not in ("", "0", "false")
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
