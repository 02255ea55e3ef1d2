"""A broker update as a record of `broker-fill`, the one door for what the broker says, whoever asked or listened."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from closeflow.contracts import BrokerFillV1, broker_fill_key, build_headers
from closeflow.contracts.broker_fill import broken_broker_fill
from closeflow.contracts.codec import encode
from closeflow.domain.model import BrokerUpdate

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRecord:
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def broker_fill_record(update: BrokerUpdate, *, producer: str) -> FillRecord:
    """`producer` is the service's name. Never refuses: an update that contradicts its contract is written all the same,
    so that its reader puts it aside under its order's name instead of nobody ever knowing of it."""
    try:
        value = encode(BrokerFillV1.from_domain(update))
    except ValueError as error:
        log.error("update_breaks_contract", client_order_id=update.client_order_id, reason=str(error))
        value = broken_broker_fill(update)
    headers = build_headers(
        BrokerFillV1,
        event_id=update.event_id,
        event_type=f"BROKER_{update.exec_type.upper()}",
        source=f"/{producer}",
        time=update.transact_time,
    )
    return FillRecord(key=broker_fill_key(update.client_order_id), value=value, headers=tuple(headers))
