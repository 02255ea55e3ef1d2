"""A position is closed: through PostgreSQL, Debezium, Kafka and a broker, with every service as a process."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import httpx

from broker_simulator.control import Behaviour, FillInParts, FillThen, NeverFill, Reject
from tests.system.desk import Desk, Held

REJECTED_FOR_NOW = Reject(status=403, code=40310000, message="price is outside of the price band")
REJECTED_FOR_GOOD = Reject(status=403, code=40310000, message="asset is restricted for this account")


def assert_told(desk: Desk, held: Held) -> None:
    """Risk was told each state of the position in order, up to closed; accounting each execution once."""
    versions = "SELECT count(*) FROM outbox_events WHERE position_id = %s AND topic = 'position-events'"
    wanted, booked = desk.count(versions, held.id), desk.executions(held)
    desk.until("events of the position in Kafka", lambda: len(desk.events("position-events", held)) >= wanted)
    risk = desk.events("position-events", held)
    assert [one["position_version"] for one in risk] == list(range(2, wanted + 2))
    assert (risk[-1]["event_type"], risk[-1]["position_status"], risk[-1]["quantity"]) == (
        "POSITION_CLOSED",
        "closed",
        "0",
    )
    desk.until("executions in Kafka", lambda: len(desk.events("execution-events", held)) >= len(booked))
    accounting = desk.events("execution-events", held)
    assert sorted(one["exec_id"] for one in accounting) == sorted(one["exec_id"] for one in booked)
    multiplier = desk.position(held)["multiplier"]
    cash = sum((Decimal(one["cash_amount"]) for one in accounting), Decimal(0))
    sold = sum((one["price"] * one["quantity"] * (1 if one["side"] == "sell" else -1) for one in booked), Decimal(0))
    assert cash == sold * multiplier


def test_every_kind_of_position_is_closed_over_both_routes(desk: Desk) -> None:
    long, short, option, coin, fraction = portfolio = desk.hold_all(
        [(10, "stock"), (-7, "stock"), (3, "option"), ("0.25", "crypto"), ("1.5", "stock")]
    )
    for held in (long, short, coin, fraction):
        desk.close(held)
    desk.close(option, path=f"/api/options/{option.id}/close")

    desk.until_status("closed", portfolio)
    desk.assert_closed_once(portfolio)
    sides = {held: desk.orders(held)[0]["side"] for held in portfolio}
    assert sides == {long: "sell", short: "buy", option: "sell", coin: "sell", fraction: "sell"}
    for held in portfolio:
        assert_told(desk, held)


def test_the_rest_of_an_order_that_was_cut_short_is_closed_by_a_second_one(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(execution=FillThen(quantity=Decimal(4), then="cancel")), symbol=held.symbol, count=1)

    request = desk.close(held)

    desk.until_status("closed", [held])
    first, second = desk.orders(held)
    assert (first["status"], first["quantity"], first["executed_qty"]) == ("canceled", 10, 4)
    assert (second["status"], second["quantity"], second["executed_qty"]) == ("filled", 6, 6)
    assert desk.request(request)["retry_count"] == 1
    desk.assert_closed_once([held], attempts=2)
    assert_told(desk, held)


def test_a_rejection_that_may_pass_is_retried(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(answer=REJECTED_FOR_NOW), symbol=held.symbol, count=1)

    request = desk.close(held)

    desk.until_status("closed", [held])
    assert [one["status"] for one in desk.orders(held)] == ["rejected", "filled"]
    row = desk.request(request)
    assert (row["status"], row["attempt"], row["filled_qty"]) == ("completed", 2, 10)
    desk.assert_closed_once([held], attempts=2)


def test_a_rejection_for_good_fails_with_its_reason_and_a_new_key_closes(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(answer=REJECTED_FOR_GOOD), symbol=held.symbol, count=1)

    refused = desk.close(held, "first")

    desk.until_status("close_failed", [held])
    assert (desk.request(refused)["status"], desk.request(refused)["reason"]) == ("failed", "restricted")
    row = desk.position(held)
    assert (row["quantity"], row["active_close_request_id"], row["exposure_unproven"]) == (10, None, False)
    assert desk.control.positions()[held.symbol] == 10
    assert desk.executions(held) == []

    # Once the reason is gone the position is closed by a new request (P8).
    again = desk.close(held, "second")
    desk.until_status("closed", [held])
    assert again != refused
    assert desk.request(again)["status"] == "completed"
    assert desk.request(refused)["status"] == "failed"
    desk.assert_closed_once([held], attempts=2)


def test_a_repeated_key_gets_the_same_close_and_another_key_a_conflict(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(execution=NeverFill()), symbol=held.symbol)

    request = desk.close(held, "mine")
    desk.until("order at the broker", lambda: desk.at_broker(held))
    replay, conflict = desk.post(held, "mine"), desk.post(held, "other")

    assert (replay.status_code, replay.headers["Idempotency-Replayed"]) == (httpx.codes.OK, "true")
    assert replay.json()["close_request_id"] == request
    assert conflict.status_code == httpx.codes.CONFLICT
    problem = conflict.json()
    assert (problem["code"], problem["active_close_request_id"]) == ("position_already_closing", request)

    desk.control.rescript(desk.at_broker(held)[0].client_order_id, Behaviour(execution=FillInParts(parts=2)))
    desk.until_status("closed", [held])
    late = desk.post(held, "mine")
    assert (late.status_code, late.json()["close_request_id"], late.json()["close_request_status"]) == (
        httpx.codes.OK,
        request,
        "completed",
    )
    assert desk.post(held, "other").json()["code"] == "position_closed"
    desk.assert_closed_once([held])


def test_fifty_keys_at_once_over_two_processes_make_one_close(desk: Desk) -> None:
    held = desk.hold(10)
    # Two processes of their own: when they have ended, PostgreSQL's counters include everything they did.
    processes = ("close-api-2", "close-api-3")
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = desk.count(deadlocks)
    desk.system.start(*processes)

    answers = asyncio.run(_post_all(desk, held, [desk.system.url(name) for name in processes]))

    for name in processes:
        assert desk.system.stop(name) == 0
    codes = [answer.status_code for answer in answers]
    assert (codes.count(httpx.codes.CREATED), codes.count(httpx.codes.CONFLICT)) == (1, 49)
    (created,) = [answer.json() for answer in answers if answer.status_code == httpx.codes.CREATED]
    assert {one.json()["active_close_request_id"] for one in answers if one.status_code != 201} == {
        created["close_request_id"]
    }
    desk.until_status("closed", [held])
    desk.assert_closed_once([held])
    assert desk.count("SELECT count(*) FROM close_requests WHERE position_id = %s", held.id) == 1
    assert desk.count(deadlocks) == before


async def _post_all(desk: Desk, held: Held, urls: list[str]) -> list[httpx.Response]:
    """Fifty, each under a key of its own."""
    headers, verify = desk.system.authorization(), desk.system.links.verify
    async with httpx.AsyncClient(headers=headers, timeout=10.0, verify=verify) as http:
        return await asyncio.gather(
            *(
                http.post(f"{urls[n % len(urls)]}{held.path}", headers={"Idempotency-Key": f"key-{n}"}, json={})
                for n in range(50)
            )
        )
