"""From the broker's stream to a topic, one record at a time. `python -m bench.flow.usual.gateway`."""

from __future__ import annotations

import os

import orjson
import uvloop
from aiokafka import AIOKafkaProducer

from bench.flow.trade_updates import trade_updates
from bench.flow.usual.models import BROKER_FILL


async def run() -> None:
    """Forward every update, each acknowledged before the next is read, until the broker goes."""
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        async for update in trade_updates(os.environ["TRADING_STREAM_URL"]):
            key = update["client_order_id"].encode()
            await producer.send_and_wait(BROKER_FILL, orjson.dumps(update), key=key)
    finally:
        await producer.stop()


if __name__ == "__main__":
    uvloop.run(run())
