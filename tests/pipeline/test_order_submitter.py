"""The order-submitter as a process: planned once, sent once, and every answer of the broker kept for what it proves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from broker_simulator.control import (
    AcceptLate,
    AcceptSilently,
    Behaviour,
    MarketHours,
    NeverFill,
    Outage,
    RefuseCancel,
    Reject,
)
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import AssetType, BrokerStatus, ExecType, RejectClass, UpdateSource

from tests.pipeline.submitting import Bench, open_bench, until

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(database, tmp_path) as made:
        yield made


async def test_an_order_is_planned_from_state_and_sent_once(bench: Bench) -> None:
    request_id = bench.add_request(quantity=10, target=4)
    message = bench.message(request_id, quantity=Decimal(9))  # the payload's quantity is not believed
    with bench.submitter() as submitter:
        await bench.producer.publish_many([message, message])
        [said] = await bench.hear(request_id)
        assert (said.exec_type, said.source) == (ExecType.ORDER_STATUS, UpdateSource.SUBMIT)
        assert said.order_qty == 4
        assert bench.keys == [str(request_id).encode()]
        await until(lambda: bench.sends(request_id) == ["accepted"], "the send is answered")
        await bench.producer.publish_many([message])
        await until(lambda: bench.log.count("attempt_already_planned") >= 2, "repeated records do nothing")
        submitter.terminate()
        await until(lambda: submitter.poll() is not None, "it stops when asked")
        assert submitter.returncode == 0
    [order] = bench.orders(request_id)
    assert (order["quantity"], order["order_type"], order["time_in_force"]) == (4, "limit", "day")
    assert order["limit_price"] == Decimal(order["quote"]["bid"])
    request = bench.request(request_id)
    assert request["status"] == "submitted"
    assert request["submitted_at"] is not None
    assert bench.control.order(client_order_id(request_id, 1)).posts_received == 1
    [sender] = bench.query("SELECT * FROM senders")
    assert sender["exited_at"] is not None
    [receipt] = bench.query("SELECT * FROM inbox")
    assert (receipt["consumer"], receipt["outcome"]) == ("order-submitter", "applied")


async def test_a_refusal_is_published_as_evidence_and_decided_by_nobody_here(bench: Bench) -> None:
    bench.control.script(Behaviour(answer=Reject(message="market is closed")))
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        [said] = await bench.hear(request_id)
        assert (said.exec_type, said.broker_order_id) == (ExecType.REJECTED, None)
        assert (said.reject_code, said.reject_class) == ("market_closed", RejectClass.RETRYABLE)
        await until(lambda: bench.sends(request_id) == ["rejected"], "the send is answered")
    assert bench.orders(request_id)[0]["status"] == "planned"
    assert bench.request(request_id)["status"] == "submitted"


async def test_an_order_accepted_without_an_answer_is_found_by_its_id(bench: Bench) -> None:
    bench.control.script(Behaviour(answer=AcceptSilently()))
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        [said, *_] = await bench.hear(request_id)
        assert said.source is UpdateSource.QUERY
        assert bench.sends(request_id) == ["unknown"]
    assert bench.orders(request_id)[0]["status"] == "submit_unknown"
    assert bench.control.order(client_order_id(request_id, 1)).posts_received == 1


async def test_an_order_that_is_proven_absent_is_sent_again_byte_for_byte(bench: Bench) -> None:
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders", requests=1))
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        [said] = await bench.hear(request_id)
        assert said.source is UpdateSource.SUBMIT
        await until(lambda: bench.sends(request_id) == ["unknown", "accepted"], "the second send is answered")
    assert bench.control.order(client_order_id(request_id, 1)).accepted == 1


async def test_without_proven_deduplication_an_unknown_order_is_never_sent_again(bench: Bench) -> None:
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders", requests=1))
    request_id = bench.add_request()
    with bench.submitter(broker_deduplication="while_open"):
        await bench.ask(request_id)
        await until(
            lambda: [one["reconcile_not_found_count"] for one in bench.orders(request_id)] >= [3], "it is looked up"
        )
    assert bench.sends(request_id) == ["unknown"]
    assert bench.orders(request_id)[0]["status"] == "submit_unknown"


async def test_what_the_broker_did_not_take_goes_out_later_under_the_same_id(bench: Bench) -> None:
    bench.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1, retry_after_s=1)
    )
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        await bench.hear(request_id)
        await until(lambda: bench.sends(request_id) == ["not_accepted", "accepted"], "the second send is answered")
    assert bench.control.order(client_order_id(request_id, 1)).accepted == 1


async def test_the_work_of_a_killed_sender_is_finished_by_another(bench: Bench) -> None:
    bench.control.script(Behaviour(answer=AcceptLate(hold_s=1)), count=5)
    requests = [bench.add_request(f"SYM{chr(65 + number)}") for number in range(10)]
    with bench.submitter(in_flight="6", http_deadline_s="1.5") as first:
        await bench.ask(*requests)
        await until(lambda: len(bench.query("SELECT FROM order_sends")) >= 6, "sends are in flight")
        first.kill()
        first.wait()
    with bench.submitter():
        for request_id in requests:
            await bench.hear(request_id)
    seen = [bench.control.order(client_order_id(request_id, 1)) for request_id in requests]
    assert [one.accepted for one in seen] == [1] * 10
    assert all(len(set(one.bodies)) == 1 for one in seen)


async def test_two_instances_send_every_order_once(bench: Bench) -> None:
    requests = [bench.add_request(f"SYM{chr(65 + number // 26)}{chr(65 + number % 26)}") for number in range(50)]
    with bench.submitter(in_flight="8"), bench.submitter(in_flight="8"):
        await bench.ask(*requests)
        for request_id in requests:
            await bench.hear(request_id)
        await until(
            lambda: bench.query("SELECT count(*) FROM order_sends WHERE answer = 'accepted'")[0]["count"] == 50,
            "every send is answered",
        )
    seen = [bench.control.order(client_order_id(request_id, 1)) for request_id in requests]
    assert [(one.posts_received, one.accepted) for one in seen] == [(1, 1)] * 50


async def test_what_cannot_be_ordered_is_denied_and_the_position_is_open_again(bench: Bench) -> None:
    request_id = bench.add_request("AAPL270115C00200000", Decimal("1.5"), asset_type=AssetType.OPTION)
    with bench.submitter():
        await bench.ask(request_id)
        await until(lambda: bench.request(request_id)["status"] == "failed", "the request is denied")
    assert bench.request(request_id)["reason"] == "bad_lot"
    [position] = bench.query("SELECT * FROM positions")
    assert (position["status"], position["active_close_request_id"]) == ("open", None)
    [event] = bench.query("SELECT * FROM outbox_events")
    assert (event["topic"], event["event_type"]) == ("position-events", "CLOSE_REQUEST_FAILED")
    assert bench.orders(request_id) == []


async def test_a_closed_market_defers_without_using_up_a_retry(bench: Bench) -> None:
    bench.control.set_hours(MarketHours(is_open=False))
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        await until(lambda: bench.request(request_id)["next_attempt_at"] is not None, "the request is deferred")
    request = bench.request(request_id)
    assert (request["status"], request["reason"], request["retry_count"]) == ("pending", "market_closed", 0)
    assert bench.orders(request_id) == []


async def test_a_message_that_disagrees_sends_nothing_and_is_reported(bench: Bench) -> None:
    request_id = bench.add_request()
    with bench.submitter():
        await bench.producer.publish_many([bench.message(request_id, symbol="MSFT")])
        await until(lambda: "submit_order_disagrees" in bench.incidents(), "an incident is open")
    assert bench.orders(request_id) == []
    assert bench.request(request_id)["status"] == "pending"


async def test_a_request_that_becomes_visible_late_is_waited_for_and_one_that_never_does_is_parked(
    bench: Bench,
) -> None:
    request_id = bench.add_request("MSFT")
    message = bench.message(request_id)
    never = bench.message(request_id, close_request_id=uuid4())
    bench.execute("CREATE TABLE kept AS SELECT * FROM close_requests")
    bench.execute("DELETE FROM close_requests")
    with bench.submitter(request_visible_within_s="4"):
        await bench.producer.publish_many([message, never])
        await until(lambda: "partitions_assigned" in bench.log, "it reads")
        bench.show_kept_requests()
        await bench.hear(request_id)
        await until(lambda: "submit_order_parked" in bench.incidents(), "the other one is parked")
    [parked] = bench.query("SELECT * FROM parked_records")
    assert (parked["reason"], bytes(parked["bytes"])) == ("request_not_visible", never.value)


async def test_a_cancel_goes_to_the_broker(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        await bench.hear(request_id)
        bench.name_at_broker(request_id)
        bench.execute("UPDATE orders SET cancel_requested_at = closeflow_now()")
        await until(lambda: bench.sends(request_id, kind="cancel") == ["accepted"], "the cancel is answered")
    [at_broker] = bench.control.order(client_order_id(request_id, 1)).orders
    assert at_broker.status == "canceled"


async def test_a_refused_cancel_is_repeated_three_times_then_a_person_looks(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill(), cancel=RefuseCancel()))
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        await bench.hear(request_id)
        bench.name_at_broker(request_id)
        bench.execute("UPDATE orders SET cancel_requested_at = closeflow_now()")
        await until(lambda: "cancel_refused" in bench.incidents(), "an incident is open")
    assert bench.sends(request_id, kind="cancel") == ["rejected"] * 3
    states = {one.order_status for one in await bench.hear(request_id, 2)}
    assert states == {BrokerStatus.NEW}


async def test_a_cancel_before_the_first_send_withdraws_the_order(bench: Bench) -> None:
    bench.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1, retry_after_s=60)
    )
    request_id = bench.add_request()
    with bench.submitter():
        await bench.ask(request_id)
        await until(lambda: bench.sends(request_id) == ["not_accepted"], "the broker did not take it")
        bench.execute("UPDATE close_requests SET cancel_requested_at = closeflow_now()")
        bench.execute("UPDATE orders SET cancel_requested_at = closeflow_now()")
        await until(lambda: bench.request(request_id)["status"] == "failed", "the close is withdrawn")
    assert bench.orders(request_id)[0]["status"] == "denied"
    assert bench.query("SELECT status FROM positions")[0]["status"] == "open"
    assert bench.control.order(client_order_id(request_id, 1)).accepted == 0


async def test_a_refused_key_opens_the_breaker_and_fails_no_close(bench: Bench) -> None:
    bench.control.outage(Outage(kind="unauthorized", method="POST", path_prefix="/v2/orders", requests=1))
    first, second = bench.add_request(), bench.add_request("MSFT")
    with bench.submitter(breaker_probe_s="2"):
        await bench.ask(first)
        await until(lambda: "broker_credentials_refused" in bench.incidents(), "an incident is open")
        await bench.ask(second)
        await until(lambda: bench.request(second)["reason"] == "broker_unavailable", "the next close is deferred")
        [breaker] = bench.query("SELECT * FROM broker_breakers")
        assert breaker["state"] == "open"
        await bench.hear(first)  # the probe
        await until(lambda: bench.query("SELECT state FROM broker_breakers")[0]["state"] == "closed", "it is closed")
    assert bench.sends(first) == ["not_accepted", "accepted"]
