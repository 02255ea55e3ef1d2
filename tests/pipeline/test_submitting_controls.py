"""What the controls do to a running order-submitter: a halt stops sends and nothing else, limits are the account's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pytest

from broker_simulator.control import AcceptSilently, Behaviour, NeverFill, Outage
from broker_simulator.process import SimulatorProcess
from closeflow.domain.ids import client_order_id
from tests.pipeline.submitting import Bench, open_bench

if TYPE_CHECKING:
    from tests.conftest import Database

# Nobody asks again here for what is deferred because the market clock was slow.
UNHURRIED: Final = {"lease_s": "30", "http_deadline_s": "5"}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), {"oversell": "allow"}) as running:
        yield running


@pytest.fixture
async def bench(module_database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(module_database, simulator, tmp_path) as made:
        yield made


def switch(bench: Bench, state: str) -> None:
    """For this test's account; the global switch is for everybody's."""
    bench.execute(
        "INSERT INTO trading_controls (scope, state, reason, by) VALUES (%(scope)s, %(state)s, 'r', 'me')"
        " ON CONFLICT (scope) DO UPDATE SET state = EXCLUDED.state",
        scope=bench.account_id,
        state=state,
    )


def limit(bench: Bench, **limits: object) -> None:
    for name, value in limits.items():
        bench.execute(
            f"UPDATE account_limits SET {name} = %(value)s WHERE account_id = %(id)s",  # noqa: S608 - names of columns
            value=value,
            id=bench.account_id,
        )


def make_due(bench: Bench, request_id: UUID) -> None:
    """As if the broker had not asked for a pause."""
    bench.execute(
        "UPDATE broker_breakers SET state = 'closed', opened_at = NULL, probe_at = NULL WHERE account_id = %(id)s",
        id=bench.account_id,
    )
    order_id = client_order_id(request_id, 1)
    bench.execute("UPDATE orders SET next_send_at = closeflow_now() WHERE client_order_id = %(id)s", id=order_id)


def posts(bench: Bench, request_id: UUID) -> int:
    return bench.control.order(client_order_id(request_id, 1)).posts_received


async def test_a_halt_defers_what_is_asked_for_and_uses_up_no_retry(bench: Bench) -> None:
    switch(bench, "halted")
    request_id = bench.add_request()
    with bench.submitter(**UNHURRIED):
        await bench.ask(request_id)
        await bench.until(lambda: bench.request(request_id)["reason"] == "trading_halted", "it is deferred")
        switch(bench, "reducing")
        await bench.ask(request_id)
        await bench.hear(request_id)
    request = bench.request(request_id)
    assert (request["status"], request["attempt"], request["retry_count"]) == ("submitted", 1, 0)
    assert posts(bench, request_id) == 1


async def test_a_halt_holds_an_order_that_is_planned_and_lets_cancels_and_look_ups_pass(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill()), count=1)
    working, unknown, planned = (bench.add_request() for _ in range(3))
    with bench.submitter(breaker_probe_s="0.2"):
        await bench.ask(working)
        await bench.hear(working)
        bench.name_at_broker(working)
        # Found late enough to be looked up during the halt.
        bench.control.script(Behaviour(answer=AcceptSilently(), visible_after_s=5), count=1)
        await bench.ask(unknown)
        await bench.until(lambda: bench.sends(unknown) == ["unknown"], "nobody answered")
        bench.control.outage(Outage(kind="unauthorized", method="POST", path_prefix="/v2/orders"))
        await bench.ask(planned)
        await bench.until(lambda: bench.sends(planned)[:1] == ["not_accepted"], "the broker did not take it")
        switch(bench, "halted")
        bench.control.clear_outages()
        make_due(bench, planned)
        bench.request_cancel(working)
        await bench.until(lambda: bench.sends(working, kind="cancel") == ["accepted"], "the cancel is answered")
        await bench.hear(unknown)  # found by a look-up
        posted = posts(bench, planned)
        due = bench.orders(planned)[0]["next_send_at"]
        await bench.until(lambda: bench.orders(planned)[0]["next_send_at"] > due, "it was due again and held")
        assert (posts(bench, planned), set(bench.sends(planned))) == (posted, {"not_accepted"})
        switch(bench, "active")
        await bench.until(lambda: bench.sends(planned)[-1] == "accepted", "it is sent")


async def test_an_order_over_a_limit_is_never_sent_and_a_person_told(bench: Bench) -> None:
    limit(bench, max_order_qty=9)
    too_many, fits = bench.add_request(10), bench.add_request(9)
    with bench.submitter(**UNHURRIED):
        await bench.ask(too_many, fits)
        await bench.hear(fits)
        await bench.until(lambda: bench.request(too_many)["status"] == "failed", "it is denied")
    assert bench.request(too_many)["reason"] == "over_max_order_qty"
    assert bench.incidents(too_many) == {"account_limit_breached"}
    assert bench.position(too_many)["status"] == "open"
    assert (bench.orders(too_many), posts(bench, too_many)) == ([], 0)


async def test_a_limit_that_was_lowered_after_the_plan_withdraws_the_order(bench: Bench) -> None:
    bench.control.outage(
        Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1, retry_after_s=5)
    )
    request_id = bench.add_request(10)
    with bench.submitter(**UNHURRIED):
        await bench.ask(request_id)
        await bench.until(lambda: bench.sends(request_id) == ["not_accepted"], "the broker did not take it")
        limit(bench, max_order_notional=1)
        await bench.until(lambda: bench.request(request_id)["status"] == "failed", "it is withdrawn")
    assert bench.incidents(request_id) == {"account_limit_breached"}
    assert bench.orders(request_id)[0]["status"] == "denied"
    assert bench.control.order(client_order_id(request_id, 1)).accepted == 0


async def test_a_sell_at_the_users_limit_is_measured_at_what_the_market_pays(bench: Bench) -> None:
    request_id = bench.add_request()
    bench.control.pin_quote(bench.request(request_id)["symbol"], "99.95", "100.05")
    limit(bench, max_order_notional=500)
    bench.execute("UPDATE close_requests SET limit_price = 0.01 WHERE id = %(id)s", id=request_id)
    with bench.submitter(**UNHURRIED):
        await bench.producer.publish_many([bench.message(request_id, limit_price=Decimal("0.01"))])
        await bench.until(lambda: bench.request(request_id)["status"] == "failed", "it is denied", within_s=90)
    assert bench.request(request_id)["reason"] == "over_max_order_notional"
    assert bench.orders(request_id) == []


async def test_the_submits_of_a_minute_are_the_accounts_over_all_processes(bench: Bench) -> None:
    limit(bench, submits_per_minute=3)
    requests = [bench.add_request() for _ in range(8)]

    def held() -> list[UUID]:
        return [one for one in requests if bench.request(one)["reason"] == "submit_limit_reached"]

    with bench.submitter(**UNHURRIED), bench.submitter(**UNHURRIED):
        for request_id in requests:
            await bench.ask(request_id)
        await bench.until(lambda: len(held()) == 5, "what is above the limit waits")
        await bench.until(
            lambda: [bench.sends(one) for one in requests].count(["accepted"]) == 3, "the others are sent"
        )
        assert sum(posts(bench, one) for one in requests) == 3
        waiting = held()
        wait_s = bench.query(
            "SELECT EXTRACT(EPOCH FROM r.next_attempt_at - l.window_started_at)::float AS s"
            " FROM close_requests r JOIN account_limits l USING (account_id) WHERE r.id = %(id)s",
            id=waiting[0],
        )
        assert wait_s == [{"s": 60.0}]
        limit(bench, window_started_at="2026-01-01T00:00:00Z", submits_per_minute=100)
        await bench.ask(*waiting)
        for request_id in waiting:
            await bench.hear(request_id)
    assert [posts(bench, one) for one in requests] == [1] * 8
    assert {bench.request(one)["retry_count"] for one in requests} == {0}
    window = bench.query("SELECT window_count FROM account_limits WHERE account_id = %(id)s", id=bench.account_id)
    assert window == [{"window_count": 5}]
