"""A broker update as a record of `broker-fill`, the one door for what the broker says, whoever asked or listened."""

from __future__ import annotations

import structlog

from closeflow.contracts import BROKER_FILL, BrokerFillV1, broker_fill_key, build_headers
from closeflow.contracts.broker_fill import broken_broker_fill
from closeflow.contracts.codec import encode
from closeflow.contracts.event_types import broker_event_type
from closeflow.domain.model import BrokerUpdate
from closeflow.kafka.producer import Outgoing

log = structlog.get_logger(__name__)


def broker_fill_record(update: BrokerUpdate, *, service: str, traceparent: str | None = None) -> Outgoing:
    """`ce_type` is BROKER_ and the kind of update, `ce_time` when we heard it (`transact_time` is the broker's).

    Never refuses: an update that contradicts its contract is written all the same, so that its reader puts it aside
    under its order's name instead of nobody ever knowing of it.
    """
    try:
        value = encode(BrokerFillV1.from_domain(update))
    except ValueError as error:
        log.error("update_breaks_contract", client_order_id=update.client_order_id, reason=str(error))
        value = broken_broker_fill(update)
    headers = build_headers(
        BrokerFillV1,
        event_id=update.event_id,
        event_type=broker_event_type(update.exec_type),
        source=f"/{service}",
        time=update.received_at,
        traceparent=traceparent,
    )
    return Outgoing(topic=BROKER_FILL, key=broker_fill_key(update.client_order_id), value=value, headers=tuple(headers))
