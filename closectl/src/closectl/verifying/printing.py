"""Show a report: a line per invariant, then a line per violation; or all of it as JSON."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from closectl.output import console, visible
from closectl.verifying.report import INVARIANTS, NOT_IN_STATE, Report


def print_report(report: Report) -> None:
    """A line per invariant with what was looked at, then a line per violation."""
    if report.not_quiet is not None:
        _line(f"not quiet: {report.not_quiet}; what holds only when quiet is checked on the rest\n")
    for number, name in INVARIANTS.items():
        _line(f"{number:2} {name:20} {_verdict(report, number)}")
        for why in report.not_checked(number):
            if report.looked(number):
                _line(f"{'':23} not checked: {why.why}", style="dim")
        if number in NOT_IN_STATE:
            _line(f"{'':23} no state shows {NOT_IN_STATE[number]}", style="dim")
    violations = report.violations
    if violations:
        _line("")
    for one in violations:
        _line(f"violation {one.invariant} ({INVARIANTS[one.invariant]}): {one.subject}: {one.detail}", style="red")
    checked = sum(bool(report.looked(number)) for number in INVARIANTS)
    verdict = f"{len(violations)} violations" if violations else "no violation"
    _line(f"\n{verdict}; {checked} of {len(INVARIANTS)} invariants checked", style="bold")


def _verdict(report: Report, number: int) -> str:
    looked = report.looked(number)
    if not looked:
        return "not checked: " + "; ".join(one.why for one in report.not_checked(number))
    broken = len({violation for part in looked for violation in part.violations})
    counts = ", ".join(dict.fromkeys(f"{one.count} {one.what} ({one.at})" for one in looked))
    return f"{f'{broken} VIOLATIONS' if broken else 'holds'}: {counts}"


def _line(text: str, *, style: str = "") -> None:
    console.print(escape(visible(text)), style=style or None, highlight=False, soft_wrap=True)


def report_json(report: Report) -> dict[str, Any]:
    """The report as `closectl verify --json` prints it."""
    return {
        "at": report.at,
        "quiet": report.not_quiet is None,
        "not_quiet": report.not_quiet,
        "violations": [_violation(one.invariant, one.subject, one.detail) for one in report.violations],
        "invariants": [_invariant(report, number) for number in INVARIANTS],
    }


def _invariant(report: Report, number: int) -> dict[str, Any]:
    looked = report.looked(number)
    return {
        "number": number,
        "name": INVARIANTS[number],
        "checked": [{"at": one.at, "what": one.what, "count": one.count} for one in looked],
        "no_state_shows": NOT_IN_STATE.get(number),
        "not_checked": [one.why for one in report.not_checked(number)],
        "violations": len({violation for part in looked for violation in part.violations}),
    }


def _violation(number: int, subject: str, detail: str) -> dict[str, Any]:
    return {"invariant": number, "name": INVARIANTS[number], "subject": subject, "detail": detail}
