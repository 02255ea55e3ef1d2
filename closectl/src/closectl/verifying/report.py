"""What a verification found: for every invariant what was looked at, what could not be, and each violation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

INVARIANTS: Final[Mapping[int, str]] = {
    1: "conserve",
    2: "no oversell",
    3: "one live order",
    4: "one active request",
    5: "idempotency",
    6: "atomic accept",
    7: "deterministic id",
    8: "attempt fence",
    9: "no regress",
    10: "cumulative quantity",
    11: "agree when quiet",
    12: "once",
    13: "no silent stuck",
    14: "published",
    15: "order per key",
    16: "ledger",
    17: "risk",
    18: "kill switch",
    19: "limits",
    20: "clock",
    21: "authorised",
    22: "offset safe",
}
"""Every invariant of the design by its number."""


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """`subject` names what is wrong, such as `position 7` or `order cf-…-1`."""

    invariant: int
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Looked:
    """One part of an invariant was checked on so many items; `at` is where they were read."""

    invariant: int
    at: str
    what: str
    count: int
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class NotChecked:
    """One part of an invariant was not checked, because it could not be reached."""

    invariant: int
    why: str


Finding = Looked | NotChecked


@dataclass(frozen=True, slots=True)
class Report:
    """`not_quiet` says what was still under way; what holds only when quiet was then checked on the rest."""

    at: datetime
    not_quiet: str | None
    findings: tuple[Finding, ...]

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every violation once, by invariant and subject."""
        found = {one for part in self.findings if isinstance(part, Looked) for one in part.violations}
        return tuple(sorted(found))

    def looked(self, invariant: int) -> list[Looked]:
        """What was looked at for the invariant; empty where it was not checked at all."""
        return [one for one in self.findings if isinstance(one, Looked) and one.invariant == invariant]

    def not_checked(self, invariant: int) -> list[NotChecked]:
        """What of the invariant could not be checked, and why."""
        return [one for one in self.findings if isinstance(one, NotChecked) and one.invariant == invariant]


def looked(invariant: int, at: str, what: str, count: int, wrong: Iterable[tuple[str, str]]) -> Looked:
    """A part that was checked; `wrong` has (subject, detail) of each violation."""
    violations = tuple(Violation(invariant, subject, detail) for subject, detail in wrong)
    return Looked(invariant, at, what, count, violations)


NOT_IN_STATE: Final[Mapping[int, str]] = {
    5: "that a reused key was answered 422: a refusal leaves no row, and no other effect is what is checked",
    6: "that each 201 was answered for these rows: answers leave none",
    20: "the observer's own monotonic wait before it took over a lease: rows have the database's time only",
}
"""What no look at any state can show; tests of the services do."""
