"""A record that nobody can read goes to the dead letters whole, and the next one goes on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from broker_simulator.control import Behaviour, FillAtOnce, FillInParts, NeverFill
from closeflow.contracts.broker_fill import broker_fill_key
from closeflow.kafka.producer import open_producer
from tests.closectl.running import Done, answer, closectl
from tests.system.desk import Desk, ticker

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
    desk.planted.add(UNREADABLE)
    async with open_producer(desk.system.kafka) as producer:
        await producer.publish("broker-fill", key=key, value=UNREADABLE, headers=[("traceparent", b"kept")])


def test_a_replayed_dead_letter_has_its_effect_once(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(execution=NeverFill()), symbol=held.symbol)
    desk.close(held)
    desk.until("order acknowledged", lambda: [one["status"] for one in desk.orders(held)] == ["new"])
    client_order_id = desk.orders(held)[0]["client_order_id"]
    key = broker_fill_key(client_order_id)

    # The row is wrong, so what the broker says of the order contradicts it.
    _name_symbol(desk, client_order_id, "WRONG")
    desk.control.rescript(client_order_id, Behaviour(execution=FillAtOnce()))
    desk.until("the fill is a dead letter", lambda: any(b"last_qty" in one for one in _letters(desk, key)))
    assert desk.executions(held) == []
    _name_symbol(desk, client_order_id, held.symbol)

    waiting = answer("dlq", "list", "--topic", "broker-fill", **desk.operator)
    places = [f"{one['partition']}:{one['offset']}" for one in waiting if one["key"] == key.decode()]
    assert _replay(desk, *places).exit_code == 0
    desk.until_status("closed", [held])
    desk.assert_closed_once([held])
    assert _replay(desk, *places).exit_code == 1, "they are handled"

    (incident,) = desk.rows("SELECT id FROM incidents WHERE client_order_id = %s", client_order_id)
    closed = closectl("incidents", "close", str(incident["id"]), "--reason", "mended", **desk.operator)
    assert (closed.exit_code, desk.orders(held)[0]["status"]) == (0, "filled")
    desk.expected_incidents = ["contradicts_order"]


def test_a_letter_that_fails_again_counts_its_replays_until_it_is_refused(desk: Desk) -> None:
    key = f"nobody's-{ticker()}".encode()
    asyncio.run(_publish(desk, key))
    for replays in range(4):
        desk.until("the letter is there", partial(_has_letters, desk, key, replays + 1))
        (waiting,) = _waiting(desk, key)
        assert (waiting["replays"], waiting["attempts"]) == (replays, str(replays + 1))
        done = _replay(desk, f"0:{waiting['offset']}")
        assert done.exit_code == (1 if replays == 3 else 0), done.stderr
    assert "it came back after 3 replays" in done.stderr

    (waiting,) = _waiting(desk, key)
    assert _replay(desk, f"0:{waiting['offset']}", "--force").exit_code == 0
    desk.until("it comes back", lambda: len(_letters(desk, key)) == 5)
    (waiting,) = _waiting(desk, key)
    assert waiting["replays"] == 4
    place = f"0:{waiting['offset']}"
    arguments = ("dlq", "discard", "--topic", "broker-fill", place, "--reason", "nobody's")
    assert closectl(*arguments, **desk.operator).exit_code == 0
    assert (_waiting(desk, key), _letters(desk, key)) == ([], [UNREADABLE] * 5)
    desk.expected_incidents = ["unreadable_update"] * 5


def _replay(desk: Desk, *arguments: str) -> Done:
    return closectl("dlq", "replay", "--topic", "broker-fill", *arguments, "--reason", "mended", **desk.operator)


def _waiting(desk: Desk, key: bytes) -> list[dict[str, Any]]:
    found = answer("dlq", "list", "--topic", "broker-fill", "--limit", "10000", **desk.operator)
    return [one for one in found if one["key"] == key.decode()]


def _letters(desk: Desk, key: bytes) -> list[bytes]:
    return [one.value or b"" for one in desk.read("broker-fill.dlq") if one.key == key]


def _has_letters(desk: Desk, key: bytes, count: int) -> bool:
    return len(_letters(desk, key)) == count


def _name_symbol(desk: Desk, client_order_id: str, symbol: str) -> None:
    update = "UPDATE orders SET symbol = %s WHERE client_order_id = %s RETURNING symbol"
    assert desk.rows(update, symbol, client_order_id) == [{"symbol": symbol}]
