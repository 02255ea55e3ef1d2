"""The order-submitter as a process: planned once, sent once, and every answer of the broker kept for what it proves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

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
from broker_simulator.process import SimulatorProcess
from closeflow.domain.ids import client_order_id, submit_event_id
from closeflow.domain.model import AssetType, BrokerStatus, ExecType, RejectClass, UpdateSource
from tests.host_clocks import HostClocks
from tests.pipeline.submitting import Bench, behave, open_bench

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture
async def alone(module_database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    """For tests that start submitters of their own."""
    async with open_bench(module_database, simulator, tmp_path) as bench:
        yield bench


@pytest.fixture(scope="module")
async def running(
    module_database: Database, simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    """One submitter for many tests."""
    async with open_bench(module_database, simulator, tmp_path_factory.mktemp("submitter")) as bench:
        with bench.submitter():
            yield bench


@pytest.fixture
def bench(running: Bench) -> Bench:
    """The running submitter, and a broker that behaves."""
    behave(running.control)
    return running


def seen_once(bench: Bench, request_id: UUID) -> bool:
    seen = bench.control.order(client_order_id(request_id, 1))
    return seen.accepted == 1 and len(set(seen.bodies)) == 1


async def test_an_order_is_planned_from_state_and_sent_once(bench: Bench) -> None:
    request_id = bench.add_request(quantity=10, target=4)
    message = bench.message(request_id, quantity=Decimal(9))  # the payload's quantity is not believed
    before = bench.log.count("attempt_already_planned")
    await bench.producer.publish_many([message, message])
    [said] = await bench.hear(request_id)
    assert (said.exec_type, said.source) == (ExecType.ORDER_STATUS, UpdateSource.SUBMIT)
    assert said.order_qty == 4
    assert bench.keys[said.event_id] == str(request_id).encode()
    await bench.until(lambda: bench.sends(request_id) == ["accepted"], "the send is answered")
    await bench.producer.publish_many([message])
    await bench.until(lambda: bench.log.count("attempt_already_planned") == before + 2, "repeated records do nothing")
    [order] = bench.orders(request_id)
    assert (order["quantity"], order["order_type"], order["time_in_force"]) == (4, "limit", "day")
    assert order["limit_price"] == Decimal(order["quote"]["bid"])
    request = bench.request(request_id)
    assert request["status"] == "submitted"
    assert request["submitted_at"] is not None
    assert bench.control.order(client_order_id(request_id, 1)).posts_received == 1
    receipts = bench.query("SELECT * FROM inbox WHERE event_id = %(id)s", id=submit_event_id(request_id, 1))
    assert [(one["consumer"], one["outcome"]) for one in receipts] == [("order-submitter", "applied")]


async def test_it_signs_off_when_asked_to_stop(alone: Bench) -> None:
    with alone.submitter() as submitter:
        await alone.until(lambda: "partitions_assigned" in alone.log, "it reads")
        submitter.terminate()
        await alone.until(lambda: submitter.poll() is not None, "it stops when asked")
    assert submitter.returncode == 0
    [sender] = alone.query("SELECT * FROM senders WHERE pid = %(pid)s", pid=submitter.pid)
    assert sender["exited_at"] is not None


async def test_a_refusal_is_published_as_evidence_and_decided_by_nobody_here(bench: Bench) -> None:
    bench.control.script(Behaviour(answer=Reject(message="market is closed")))
    request_id = bench.add_request()
    await bench.ask(request_id)
    [said] = await bench.hear(request_id)
    assert (said.exec_type, said.broker_order_id) == (ExecType.REJECTED, None)
    assert (said.reject_code, said.reject_class) == ("market_closed", RejectClass.RETRYABLE)
    await bench.until(lambda: bench.sends(request_id) == ["rejected"], "the send is answered")
    assert bench.orders(request_id)[0]["status"] == "planned"
    assert bench.request(request_id)["status"] == "submitted"


async def test_an_order_accepted_without_an_answer_is_found_by_its_id(bench: Bench) -> None:
    bench.control.script(Behaviour(answer=AcceptSilently()))
    request_id = bench.add_request()
    await bench.ask(request_id)
    [said, *_] = await bench.hear(request_id)
    assert said.source is UpdateSource.QUERY
    assert bench.sends(request_id) == ["unknown"]
    assert bench.orders(request_id)[0]["status"] == "submit_unknown"
    assert bench.control.order(client_order_id(request_id, 1)).posts_received == 1


async def test_an_order_that_is_proven_absent_is_sent_again_byte_for_byte(bench: Bench) -> None:
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders", requests=1))
    request_id = bench.add_request()
    await bench.ask(request_id)
    [said] = await bench.hear(request_id)
    assert said.source is UpdateSource.SUBMIT
    await bench.until(lambda: bench.sends(request_id) == ["unknown", "accepted"], "the second send is answered")
    assert bench.control.order(client_order_id(request_id, 1)).posts_received == 2
    assert seen_once(bench, request_id)


async def test_without_proven_deduplication_an_unknown_order_is_never_sent_again(alone: Bench) -> None:
    alone.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders", requests=1))
    request_id = alone.add_request()
    with alone.submitter(broker_deduplication="while_open", lease_s="4"):
        await alone.ask(request_id)
        await alone.until(
            lambda: [one["reconcile_not_found_count"] for one in alone.orders(request_id)] >= [2], "it is looked up"
        )
    assert alone.sends(request_id) == ["unknown"]
    assert alone.orders(request_id)[0]["status"] == "submit_unknown"


async def test_what_the_broker_did_not_take_goes_out_later_under_the_same_id(bench: Bench) -> None:
    bench.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1, retry_after_s=1)
    )
    request_id = bench.add_request()
    await bench.ask(request_id)
    await bench.hear(request_id)
    await bench.until(lambda: bench.sends(request_id) == ["not_accepted", "accepted"], "the second send is answered")
    assert seen_once(bench, request_id)


async def test_what_cannot_be_ordered_is_denied_and_the_position_is_open_again(bench: Bench) -> None:
    request_id = bench.add_request()
    bench.control.pin_quote(bench.request(request_id)["symbol"], "97", "103")
    deadline = time.monotonic() + 30
    while bench.request(request_id)["status"] != "failed":  # Quotes wait a while after the 429 of the test before.
        assert time.monotonic() < deadline, "the request is denied"
        await bench.ask(request_id)
        await asyncio.sleep(1)
    assert bench.request(request_id)["reason"] == "touch_beyond_slippage"
    position = bench.position(request_id)
    assert (position["status"], position["active_close_request_id"]) == ("open", None)
    events = bench.query("SELECT * FROM outbox_events WHERE close_request_id = %(id)s", id=request_id)
    assert [(one["topic"], one["event_type"]) for one in events] == [("position-events", "CLOSE_REQUEST_FAILED")]
    assert bench.orders(request_id) == []


async def test_what_is_below_a_lot_is_left(bench: Bench) -> None:
    request_id = bench.add_request(Decimal("1.5"), asset_type=AssetType.OPTION)
    await bench.ask(request_id)
    await bench.hear(request_id)
    assert [one["quantity"] for one in bench.orders(request_id)] == [1]


async def test_a_stub_quote_sends_nothing(bench: Bench) -> None:
    request_id = bench.add_request(-10)
    bench.control.pin_quote(bench.request(request_id)["symbol"], "0.01", "199999.99")
    await bench.ask(request_id)
    await bench.until(lambda: bench.request(request_id)["reason"] == "wide_quote", "the close waits")
    assert (bench.request(request_id)["status"], bench.orders(request_id)) == ("pending", [])


async def test_a_closed_market_defers_without_using_up_a_retry(alone: Bench) -> None:
    alone.control.set_hours(MarketHours(is_open=False))
    request_id = alone.add_request()
    with alone.submitter():
        await alone.ask(request_id)
        await alone.until(lambda: alone.request(request_id)["next_attempt_at"] is not None, "the request is deferred")
    request = alone.request(request_id)
    assert (request["status"], request["reason"], request["retry_count"]) == ("pending", "market_closed", 0)
    assert alone.orders(request_id) == []


async def test_an_event_that_was_received_before_is_planned_when_it_is_time(alone: Bench) -> None:
    alone.control.set_hours(MarketHours(is_open=False))
    request_id = alone.add_request()
    with alone.submitter():
        await alone.ask(request_id)
        await alone.until(lambda: alone.request(request_id)["next_attempt_at"] is not None, "the request is deferred")
        behave(alone.control)
        give_up_at = time.monotonic() + 20
        while alone.request(request_id)["status"] != "submitted":
            assert time.monotonic() < give_up_at, alone.request(request_id)
            await alone.ask(request_id)  # the same event again, until the kept market clock has been fetched anew
            await asyncio.sleep(0.1)
    assert len(alone.orders(request_id)) == 1


async def test_a_message_that_disagrees_sends_nothing_and_is_reported(bench: Bench) -> None:
    request_id = bench.add_request()
    await bench.producer.publish_many([bench.message(request_id, symbol="OTHER")])
    await bench.until(lambda: "submit_order_disagrees" in bench.incidents(request_id), "an incident is open")
    assert bench.orders(request_id) == []
    assert bench.request(request_id)["status"] == "pending"


async def test_a_request_that_is_not_visible_yet_is_waited_for(bench: Bench) -> None:
    other = bench.add_request()
    with bench.adding_request() as message:
        await bench.ask(message.close_request_id, other)
        await bench.hear(other)  # read together or later, so the submitter has met the record
    await bench.hear(message.close_request_id)
    assert bench.incidents(message.close_request_id) == set()


async def test_a_request_that_never_becomes_visible_is_parked(bench: Bench) -> None:
    request_id, never = bench.add_request(), uuid4()
    unseen = bench.message(request_id, close_request_id=never)
    await bench.producer.publish_many([unseen, bench.message(request_id)])
    await bench.hear(request_id)  # the partition goes on
    await bench.until(lambda: "submit_order_parked" in bench.incidents(never), "an incident is open")
    parked = bench.query("SELECT reason FROM parked_records WHERE bytes = %(bytes)s", bytes=unseen.value)
    assert [one["reason"] for one in parked] == ["request_not_visible"]


async def test_a_record_whose_sql_fails_is_parked_and_frozen_and_the_others_go_on(bench: Bench) -> None:
    requests = [bench.add_request() for _ in range(3)]
    poison = requests[1]
    bench.execute(f"ALTER TABLE orders ADD CONSTRAINT poisoned CHECK (close_request_id <> '{poison}')")
    await bench.ask(*requests)
    for request_id in (requests[0], requests[2]):
        await bench.hear(request_id)
    await bench.until(lambda: "submit_order_parked" in bench.incidents(poison), "an incident is open")
    assert bench.request(poison)["frozen_reason"] == "submit_order_parked"
    assert bench.orders(poison) == []


async def test_an_order_that_cannot_be_attended_to_holds_up_no_other(alone: Bench) -> None:
    alone.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=2, retry_after_s=5)
    )
    poison, good = alone.add_request(), alone.add_request()
    poisoned = client_order_id(poison, 1)
    with alone.submitter(breaker_probe_s="0.3") as process:
        await alone.ask(poison, good)
        await alone.until(
            lambda: all(alone.sends(one) == ["not_accepted"] for one in (poison, good)), "the broker took neither"
        )
        alone.execute(
            f"ALTER TABLE order_sends ADD CONSTRAINT poisoned CHECK (client_order_id <> '{poisoned}' OR n = 1)"
        )
        await alone.until(lambda: alone.sends(good) == ["not_accepted", "accepted"], "the other one is sent")
        await alone.until(lambda: "order_not_attended" in alone.incidents(poisoned), "a person is told")
        assert process.poll() is None
    assert alone.orders(poison)[0]["status"] == "planned"
    alone.execute("ALTER TABLE order_sends DROP CONSTRAINT poisoned")


async def test_a_cancel_goes_to_the_broker(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    request_id = bench.add_request()
    await bench.ask(request_id)
    await bench.hear(request_id)
    bench.name_at_broker(request_id)
    bench.request_cancel(request_id)
    await bench.until(lambda: bench.sends(request_id, kind="cancel") == ["accepted"], "the cancel is answered")
    [at_broker] = bench.control.order(client_order_id(request_id, 1)).orders
    assert at_broker.status == "canceled"


async def test_a_refused_cancel_is_repeated_three_times_then_a_person_looks(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill(), cancel=RefuseCancel()))
    request_id = bench.add_request()
    await bench.ask(request_id)
    await bench.hear(request_id)
    bench.name_at_broker(request_id)
    bench.request_cancel(request_id)
    await bench.until(lambda: "cancel_refused" in bench.incidents(request_id), "an incident is open")
    assert bench.sends(request_id, kind="cancel") == ["rejected"] * 3
    states = {one.order_status for one in await bench.hear(request_id, 2)}
    assert states == {BrokerStatus.NEW}


async def test_a_cancel_before_the_first_send_withdraws_the_order(alone: Bench) -> None:
    alone.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1, retry_after_s=60)
    )
    request_id = alone.add_request()
    with alone.submitter():
        await alone.ask(request_id)
        await alone.until(lambda: alone.sends(request_id) == ["not_accepted"], "the broker did not take it")
        alone.request_cancel(request_id)
        await alone.until(lambda: alone.request(request_id)["status"] == "failed", "the close is withdrawn")
    assert alone.orders(request_id)[0]["status"] == "denied"
    assert alone.position(request_id)["status"] == "open"
    assert alone.control.order(client_order_id(request_id, 1)).accepted == 0


async def test_a_refused_key_opens_the_breaker_and_fails_no_close(alone: Bench) -> None:
    alone.control.outage(Outage(kind="unauthorized", method="POST", path_prefix="/v2/orders", requests=1))
    first, second = alone.add_request(), alone.add_request()

    def breaker() -> list[str]:
        found = alone.query("SELECT state FROM broker_breakers WHERE account_id = %(id)s", id=alone.account_id)
        return [one["state"] for one in found]

    with alone.submitter(breaker_probe_s="5"):
        await alone.ask(first)
        await alone.until(lambda: "broker_credentials_refused" in alone.incidents(alone.account_id), "a person is told")
        await alone.ask(second)
        await alone.until(lambda: alone.request(second)["reason"] == "broker_unavailable", "the next close is deferred")
        assert breaker() == ["open"]
        await alone.hear(first)  # the probe
        await alone.until(lambda: breaker() == ["closed"], "it is closed")
    assert alone.sends(first) == ["not_accepted", "accepted"]


async def test_a_host_whose_clock_is_wrong_and_moves_holds_no_order_back(alone: Bench, tmp_path: Path) -> None:
    """Whatever is waited for was written by the database's clock, and is held against that."""
    clocks = HostClocks(tmp_path / "clocks")
    submit: dict[str, Any] = {"method": "POST", "path_prefix": "/v2/orders", "requests": 1}

    def taken(request_id: UUID) -> bool:
        return alone.sends(request_id) == ["not_accepted", "accepted"]

    with clocks.inherited(), alone.submitter(breaker_probe_s="1"):
        for shift_s in (300, -3600):
            clocks.shift("order_submitter", shift_s)
            for outage in (Outage(kind="unauthorized", **submit), Outage(kind="rate_limit", **submit)):
                alone.control.outage(outage)
                request_id = alone.add_request()
                await alone.ask(request_id)
                await alone.hear(request_id)
                await alone.until(partial(taken, request_id), "it is sent again, and taken")
    assert alone.query("SELECT FROM order_sends WHERE NOT answered_at BETWEEN started_at AND lease_until") == []


async def test_the_work_of_a_killed_sender_is_finished_by_another(alone: Bench) -> None:
    alone.control.script(Behaviour(answer=AcceptLate(hold_s=1)), count=5)
    requests = [alone.add_request() for _ in range(10)]
    with alone.submitter(in_flight="6") as first:
        await alone.ask(*requests)
        await alone.until(lambda: sum(len(alone.sends(one)) for one in requests) >= 6, "sends are in flight")
        first.kill()
        first.wait()
    with alone.submitter():
        for request_id in requests:
            await alone.hear(request_id)
    assert all(seen_once(alone, request_id) for request_id in requests)


async def test_a_claim_of_a_dead_sender_goes_out_at_once_unless_it_had_begun(alone: Bench) -> None:
    """Its lease is an hour long, and a broker that forgets ids lets nothing be repeated that may have been sent."""
    alone.control.outage(Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders"))
    claimed, begun = alone.add_request(), alone.add_request()
    with alone.submitter(broker_deduplication="none") as first:
        await alone.ask(claimed, begun)
        # An answer shows that it was handed to the network: what has begun and was not is known not to have left.
        sent = (
            "SELECT DISTINCT client_order_id FROM order_sends"
            " WHERE begun_at IS NOT NULL AND answered_at IS NOT NULL AND sender LIKE %(pid)s"
        )
        await alone.until(lambda: len(alone.query(sent, pid=f"%-{first.pid}-%")) == 2, "both were handed over")
        first.kill()
    alone.control.clear_outages()
    alone.execute(
        "UPDATE order_sends SET answered_at = NULL, answer = NULL, lease_until = closeflow_now() + interval '1 hour',"
        " begun_at = CASE client_order_id WHEN %(id)s THEN NULL ELSE begun_at END WHERE sender LIKE %(pid)s",
        id=client_order_id(claimed, 1),
        pid=f"%-{first.pid}-%",
    )
    with alone.submitter(broker_deduplication="none"):
        await alone.until(lambda: alone.sends(claimed) == ["not_sent", "accepted"], "it is sent", within_s=60)
    assert alone.sends(begun) == [None]


async def test_two_instances_send_every_order_once(alone: Bench) -> None:
    requests = [alone.add_request() for _ in range(50)]
    unhurried = {"in_flight": "8", "lease_s": "30", "http_deadline_s": "5"}
    with alone.submitter(**unhurried), alone.submitter(**unhurried):
        await alone.ask(*requests)
        for request_id in requests:
            await alone.hear(request_id)
        await alone.until(lambda: all(alone.sends(one) == ["accepted"] for one in requests), "every send is answered")
    seen = [alone.control.order(client_order_id(request_id, 1)) for request_id in requests]
    assert [(one.posts_received, one.accepted) for one in seen] == [(1, 1)] * 50
