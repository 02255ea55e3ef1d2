"""What one broker update comes to."""

from __future__ import annotations

from dataclasses import dataclass

from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import (
    Execution,
    Incident,
    Order,
)


@dataclass(frozen=True, slots=True)
class Applied:
    """New facts; `execution` is set when the update's own was booked; withheld ones may have been booked too."""

    order: Order
    execution: Execution | None
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeated:
    """Nothing in it that is not known already."""


@dataclass(frozen=True, slots=True)
class ProvesNothing:
    """A refusal of a repeated send (rule R3b), or an answer that states nothing: no fact is made of it."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """It contradicts what the order is. Nothing of it is applied; the request is frozen until a person looks."""

    error: IncidentKind
    reason: str


Verdict = Applied | Repeated | ProvesNothing | Quarantined
