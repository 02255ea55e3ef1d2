"""What the broker answered → `broker-fill`, acknowledged by Kafka before anything is concluded from it here."""

from __future__ import annotations

from closeflow.contracts import build_headers, encode
from closeflow.contracts.broker_fill import BrokerFillV1, broker_fill_key
from closeflow.contracts.topics import BROKER_FILL
from closeflow.domain.model import BrokerUpdate
from closeflow.kafka import Producer

SOURCE = "/order-submitter"


class FillPublisher:
    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def publish(self, update: BrokerUpdate, *, traceparent: str | None = None) -> None:
        """Returns when Kafka has it. Raises ValueError for an update that no reader would accept, and aiokafka's
        KafkaError when it is not known to be there; publishing it again is harmless."""
        value = encode(BrokerFillV1.from_domain(update))
        headers = build_headers(
            BrokerFillV1,
            event_id=update.event_id,
            event_type=update.exec_type.value,
            source=SOURCE,
            time=update.received_at,
            traceparent=traceparent,
        )
        key = broker_fill_key(update.client_order_id)
        await self._producer.publish(BROKER_FILL, key=key, value=value, headers=headers)
