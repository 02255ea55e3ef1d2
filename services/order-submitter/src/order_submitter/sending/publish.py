"""What the broker answered → `broker-fill`, acknowledged by Kafka before anything is concluded from it here."""

from __future__ import annotations

from closeflow.domain.model import BrokerUpdate
from closeflow.kafka import Producer
from closeflow.kafka.broker_fill import broker_fill_record


class FillPublisher:
    """Publishes answers under this service's name."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def publish(self, update: BrokerUpdate, *, traceparent: str | None = None) -> None:
        """Returns when Kafka has it. Raises KafkaError when it is not known to be there; publishing it again is
        harmless."""
        record = broker_fill_record(update, service="order-submitter", traceparent=traceparent)
        await self._producer.publish_many([record])
