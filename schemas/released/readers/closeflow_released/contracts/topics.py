"""The topics by name, and what their records are. What each promises is in `schemas/topics/<topic>.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from closeflow_released.contracts.broker_fill import BrokerFillV1
from closeflow_released.contracts.execution_event import ExecutionEvent
from closeflow_released.contracts.position_event import PositionEvent
from closeflow_released.contracts.submit_order import SubmitOrder
from closeflow_released.contracts.wire import WireModel
from closeflow_released.domain.model import Topic

SUBMIT_ORDER: Final = Topic.SUBMIT_ORDER.value
BROKER_FILL: Final = "broker-fill"
POSITION_EVENTS: Final = Topic.POSITION_EVENTS.value
EXECUTION_EVENTS: Final = Topic.EXECUTION_EVENTS.value

TOPIC_MODELS: Final[Mapping[str, type[WireModel]]] = {
    SUBMIT_ORDER: SubmitOrder,
    BROKER_FILL: BrokerFillV1,
    POSITION_EVENTS: PositionEvent,
    EXECUTION_EVENTS: ExecutionEvent,
}


def dead_letter_topic(topic: str) -> str:
    """Where a consumer puts the original bytes of what it cannot read."""
    return f"{topic}.dlq"
