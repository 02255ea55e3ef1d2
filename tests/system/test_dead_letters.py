"""A record that nobody can read goes to the dead letters whole, and the next one goes on."""

from __future__ import annotations

import asyncio

from broker_simulator.control import Behaviour, FillInParts, NeverFill
from closeflow.contracts.broker_fill import broker_fill_key
from closeflow.kafka.producer import open_producer
from tests.system.desk import Desk

UNREADABLE = b'{"event_id": \xff not JSON'


def test_an_unreadable_broker_fill_goes_to_the_dead_letters_and_the_next_goes_on(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(execution=NeverFill()), symbol=held.symbol)
    desk.close(held)
    desk.until("order acknowledged", lambda: [one["status"] for one in desk.orders(held)] == ["new"])
    client_order_id = desk.orders(held)[0]["client_order_id"]
    key = broker_fill_key(client_order_id)

    # On the order's own partition, between its acknowledgement and its fills.
    asyncio.run(_publish(desk, key))
    desk.control.rescript(client_order_id, Behaviour(execution=FillInParts(parts=2)))

    desk.until_status("closed", [held])
    desk.assert_closed_once([held])
    letters = [one for one in desk.read("broker-fill.dlq") if one.key == key]
    assert [one.value for one in letters] == [UNREADABLE]
    headers = {name: (raw or b"").decode() for name, raw in letters[0].headers}
    assert headers["dlq_origin_topic"] == "broker-fill"
    assert (int(headers["dlq_origin_partition"]) in range(6), int(headers["dlq_origin_offset"]) >= 0) == (True, True)
    assert (headers["dlq_attempts"], headers["traceparent"]) == ("1", "kept")
    assert headers["dlq_error_class"]
    assert headers["dlq_reason"]
    assert headers["dlq_first_seen"].endswith("Z")
    desk.expected_incidents = ["unreadable_update"]


async def _publish(desk: Desk, key: bytes) -> None:
    async with open_producer(desk.system.kafka) as producer:
        await producer.publish("broker-fill", key=key, value=UNREADABLE, headers=[("traceparent", b"kept")])
