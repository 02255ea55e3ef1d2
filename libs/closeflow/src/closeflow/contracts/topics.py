"""Topic names. What a topic promises (key, schema, retention) is in `schemas/topics/<topic>.yaml`."""

from __future__ import annotations

from typing import Final

from closeflow.domain.model import Topic

SUBMIT_ORDER: Final = Topic.SUBMIT_ORDER.value
BROKER_FILL: Final = "broker-fill"
POSITION_EVENTS: Final = Topic.POSITION_EVENTS.value
EXECUTION_EVENTS: Final = Topic.EXECUTION_EVENTS.value


def dead_letter_topic(topic: str) -> str:
    """Where a consumer puts the original bytes of what it cannot read."""
    return f"{topic}.dlq"
