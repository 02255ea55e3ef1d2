"""What a person is told: incidents, made in one place."""

from __future__ import annotations

from typing import Final

from closeflow.domain.model import Incident, Order

ABOVE_STATED: Final = "executed_above_stated"


def about_order(order: Order, kind: str, severity: str, detail: str) -> Incident:
    """One whose subject is the order; it names its close and its position, too."""
    return Incident(
        kind=kind,
        severity=severity,
        detail=detail,
        position_id=order.position_id,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
    )
