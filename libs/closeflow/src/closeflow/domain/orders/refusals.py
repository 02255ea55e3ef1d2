"""Rule R3b: when the refusal of a send proves that the broker has no such order."""

from __future__ import annotations

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import (
    BrokerUpdate,
    ExecType,
    Order,
    RejectClass,
    Statement,
    StatementKind,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.verdicts import Applied, ProvesNothing, Repeated, Verdict


def judge_refusal(order: Order, update: BrokerUpdate) -> Verdict:
    """Rule R3b: a refusal proves absence only as the answer to the first and only send that counts."""
    if update.exec_type is not ExecType.REJECTED:
        return ProvesNothing()
    if order_status.statement(order, StatementKind.REFUSED) is not None:
        return Repeated()
    if order_status.sends_that_count(order) != 1 or order_status.broker_statements(order) or order.executions:
        return ProvesNothing()
    unmapped = update.reject_class is None
    refusal = Statement(
        kind=StatementKind.REFUSED,
        stated_at=update.transact_time,
        heard_at=update.received_at,
        source=update.source,
        detail=update.reason,
    )
    changed = replace(
        order,
        statements=(*order.statements, refusal),
        reject_code=update.reject_code,
        reject_class=update.reject_class or RejectClass.TERMINAL,
        last_broker_update_at=update.received_at,
        next_send_at=None,
    )
    detail = f"{update.reject_code}: {update.reason}"
    raised = (about_order(order, IncidentKind.UNMAPPED_REFUSAL, detail),) if unmapped else ()
    return Applied(order_status.derive(changed), None, raised)
