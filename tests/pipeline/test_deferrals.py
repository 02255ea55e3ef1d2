"""Closes that stand still: who is told, when, and until when; and what the submitter makes of an odd market."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from broker_simulator.control import Pin
from closeflow.domain.model import AssetType
from closeflow.storage.core.engine import Database as Engine
from reconciler.jobs.watch_deferrals import WatchDeferrals
from tests.pipeline.submitting import Bench, until

if TYPE_CHECKING:
    pass


def deferred(bench: Bench, reason: str | None, since: str) -> UUID:
    request_id = bench.add_request()
    bench.execute(
        "UPDATE close_requests SET reason = %(reason)s, deferred_since = now() - CAST(%(since)s AS interval)"
        " WHERE id = %(id)s",
        reason=reason,
        since=since,
        id=request_id,
    )
    return request_id


@pytest.mark.parametrize(
    ("reason", "early", "late"),
    [
        ("no_fresh_quote", "110 s", "121 s"),
        ("no_bid", "110 s", "121 s"),
        ("wide_quote", "110 s", "121 s"),
        ("frozen", "110 s", "121 s"),
        ("nothing_owed", "110 s", "121 s"),
    ],
)
async def test_a_reason_of_a_close_that_lasts_is_an_incident_of_its_own_kind(
    bench: Bench, engine: Engine, reason: str, early: str, late: str
) -> None:
    young, old = deferred(bench, reason, early), deferred(bench, reason, late)
    job = WatchDeferrals(engine)
    assert await job.once() == 1
    assert (bench.incidents(young), bench.incidents(old)) == (set(), {f"deferred_{reason}"})
    assert await job.once() == 0, "it is told once"
    bench.execute("UPDATE close_requests SET reason = 'crossed_quote' WHERE id = %(id)s", id=old)
    assert await job.once() == 1
    assert bench.incidents(old) == {f"deferred_{reason}", "deferred_crossed_quote"}, "it waits still"
    bench.execute("UPDATE close_requests SET deferred_since = NULL, status = 'submitted' WHERE id = %(id)s", id=old)
    assert await job.once() == 0
    assert bench.incidents(old) == set()


async def test_a_close_that_is_refused_for_what_passes_waits_between_its_tries_too(
    bench: Bench, engine: Engine
) -> None:
    request_id = deferred(bench, "symbol_halted", "121 s")
    job = WatchDeferrals(engine)
    bench.execute("UPDATE close_requests SET status = 'retryable'")
    assert await job.once() == 1
    for status in ("pending", "submitted", "retryable"):
        bench.execute("UPDATE close_requests SET status = %(status)s", status=status)
        assert await job.once() == 0
        assert bench.incidents(request_id) == {"deferred_symbol_halted"}
    bench.execute("UPDATE close_requests SET status = 'completed'")
    assert await job.once() == 0
    assert bench.incidents(request_id) == set()


@pytest.mark.parametrize(
    ("reason", "early", "late"),
    [
        ("broker_unavailable", "50 s", "61 s"),
        ("no_market_clock", "50 s", "61 s"),
        ("limits_missing", "110 s", "121 s"),
        ("submit_limit_reached", "110 s", "121 s"),
        ("trading_halted", "14 minutes", "16 minutes"),
        ("market_closed", "90 hours", "97 hours"),
    ],
)
async def test_a_reason_of_a_whole_account_is_one_incident(
    bench: Bench, engine: Engine, reason: str, early: str, late: str
) -> None:
    deferred(bench, reason, early)
    job = WatchDeferrals(engine)
    assert await job.once() == 0
    waiting = [deferred(bench, reason, late) for _ in range(3)]
    assert await job.once() == 1
    assert bench.incidents(bench.account_id) == {f"deferred_{reason}"}
    assert all(bench.incidents(one) == set() for one in waiting)
    bench.execute("UPDATE close_requests SET deferred_since = now()")
    await job.once()
    assert bench.incidents(bench.account_id) == set()


async def test_a_close_that_nobody_plans_and_orders_that_nobody_sends_or_answers_are_told_of(
    bench: Bench, engine: Engine
) -> None:
    job = WatchDeferrals(engine)
    request_id = bench.add_request()
    assert await job.once() == 0
    bench.execute("UPDATE close_requests SET created_at = now() - interval '61 s'")
    bench.execute("UPDATE status_history SET at = now() - interval '61 s'")
    assert await job.once() == 1
    assert bench.incidents(bench.account_id) == {"close_not_planned"}
    bench.execute("UPDATE close_requests SET status = 'submitted' WHERE id = %(id)s", id=request_id)
    bench.execute(
        "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side,"
        " quantity, order_type, time_in_force, status, created_at) SELECT 'cf-' || replace(id::text, '-', '') || '-1',"
        " id, 1, position_id, account_id, symbol, side, target_qty, 'market', 'day', 'planned', now() - interval '61 s'"
        " FROM close_requests"
    )
    assert await job.once() == 1
    assert bench.incidents(bench.account_id) == {"orders_not_sent"}
    bench.execute(
        "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at)"
        " SELECT client_order_id, 'submit', 1, 'a', now(), now() FROM orders"
    )
    bench.execute("UPDATE orders SET status = 'submit_unknown'")
    assert await job.once() == 0, "it was planned long ago and sent just now"
    bench.execute("UPDATE order_sends SET started_at = now() - interval '51 s'")
    assert await job.once() == 1
    assert bench.incidents(bench.account_id) == {"orders_not_answered"}
    bench.execute("UPDATE orders SET status = 'planned'")
    bench.execute(
        "INSERT INTO broker_breakers (broker, account_id, state, failures, refusals)"
        " VALUES ('alpaca', %(id)s, 'open', 5, 0)",
        id=bench.account_id,
    )
    assert await job.once() == 1
    assert bench.incidents(bench.account_id) == {"deferred_broker_unavailable"}


def has(bench: Bench, request_id: UUID, **values: str) -> bool:
    return bench.request(request_id).items() >= values.items()


def symbol_of(bench: Bench, request_id: UUID) -> str:
    return str(bench.request(request_id)["symbol"])


async def test_symbols_that_cannot_be_quoted_hold_up_no_other(bench: Bench) -> None:
    bad = {name: bench.add_request() for name in ("refused", "silent", "without_bid", "unknown")}
    good = [bench.add_request() for _ in range(12)]
    pins = {
        "refused": Pin(spoils="refuse"),
        "silent": Pin(spoils="hang"),
        "without_bid": Pin(ask=Decimal(10)),
        "unknown": Pin(missing=True, listed="unknown"),
    }
    for name, pin in pins.items():
        bench.control.pin(symbol_of(bench, bad[name]), pin)
    with bench.submitter():
        await bench.ask(*good, *bad.values())
        await until(lambda: all(bench.sends(one) for one in good), "the good ones are sent")
        for name, reason in (("refused", "no_fresh_quote"), ("silent", "no_fresh_quote"), ("without_bid", "no_bid")):
            await until(partial(has, bench, bad[name], reason=reason), name)
            assert bench.request(bad[name])["deferred_since"] is not None
        await until(lambda: bench.request(bad["unknown"])["reason"] == "unknown_symbol", "it is denied")
        assert bench.request(bad["unknown"])["status"] == "failed"
        assert bench.position(bad["unknown"])["status"] == "open"


async def test_the_quote_of_a_thin_market_is_used_once_it_was_asked_for_again(bench: Bench) -> None:
    thin, short = bench.add_request(3, asset_type=AssetType.OPTION), bench.add_request(-2, asset_type=AssetType.OPTION)
    bench.control.pin(symbol_of(bench, thin), Pin(bid=Decimal("1.00"), ask=Decimal("1.10"), age_s=900))
    bench.control.pin(symbol_of(bench, short), Pin(ask=Decimal("0.05"), age_s=900))
    with bench.submitter():
        for request_id, price in ((thin, "1.00"), (short, "0.05")):
            await bench.ask(request_id)
            await until(partial(has, bench, request_id, reason="no_fresh_quote"), "it is not taken at once")
            give_up_at = time.monotonic() + 20
            while not has(bench, request_id, status="submitted"):
                assert time.monotonic() < give_up_at, bench.request(request_id)
                await bench.ask(request_id)  # as the reconciler does
                await asyncio.sleep(0.2)
            assert bench.orders(request_id)[0]["limit_price"] == Decimal(price)
