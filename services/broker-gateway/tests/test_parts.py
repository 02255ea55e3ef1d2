"""The gateway's parts that need no server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from broker_gateway.backfill import Patience
from broker_gateway.publisher import Memory, without_superseded
from broker_gateway.session import BackOff, Pace, keep_backfilling, race
from broker_gateway.settings import BrokerGatewaySettings
from closeflow.broker import BrokerUnavailable
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, Side, UpdateSource
from closeflow.run import EndedUnasked
from closeflow.settings import BadSetting, read
from closeflow.storage.broker_cursors import DATABASE_AWAY
from closeflow.storage.core.engine import CommitUnknown

AT = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
TRADE = BrokerUpdate(
    event_id=uuid4(),
    broker="alpaca",
    account_id="acc-1",
    symbol="AAPL",
    client_order_id="cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1",
    exec_type=ExecType.TRADE,
    side=Side.SELL,
    source=UpdateSource.STREAM,
    transact_time=AT,
    received_at=AT,
    broker_order_id="order-1",
    exec_id="exec-1",
    last_quantity=Decimal(1),
    last_price=Decimal(100),
)
ENVIRONMENT = {
    "BROKER_GATEWAY_BROKER_ACCOUNT_ID": "acc-1",
    "BROKER_GATEWAY_POSTGRES_DSN": "postgresql://gateway@127.0.0.1/closeflow",
    "BROKER_GATEWAY_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "BROKER_GATEWAY_BROKER_URL": "http://127.0.0.1:8090",
    "BROKER_GATEWAY_BROKER_STREAM_URL": "ws://127.0.0.1:8090/stream",
    "BROKER_GATEWAY_BROKER_KEY_ID": "key",
    "BROKER_GATEWAY_BROKER_SECRET_KEY": "secret",
}
ACCEPTED = replace(
    TRADE,
    event_id=uuid4(),
    exec_type=ExecType.NEW,
    order_status=BrokerStatus.NEW,
    broker_seq=10,
    exec_id=None,
    last_quantity=None,
    last_price=None,
)
FILLED = replace(TRADE, order_status=BrokerStatus.FILLED, broker_seq=11, cum_quantity=Decimal(1))
SUPERSEDED = {
    "accepted, then filled": ([ACCEPTED, FILLED], [FILLED]),
    "accepted twice": ([ACCEPTED, replace(ACCEPTED, broker_seq=11)], [replace(ACCEPTED, broker_seq=11)]),
    "the later one came first": ([FILLED, ACCEPTED], [FILLED, ACCEPTED]),
    "another order is filled": (
        [ACCEPTED, replace(FILLED, client_order_id="other")],
        [ACCEPTED, replace(FILLED, client_order_id="other")],
    ),
    "the later one has no sequence": (
        [ACCEPTED, replace(FILLED, broker_seq=None)],
        [ACCEPTED, replace(FILLED, broker_seq=None)],
    ),
    "the later one states no status": (
        [ACCEPTED, replace(FILLED, order_status=None)],
        [ACCEPTED, replace(FILLED, order_status=None)],
    ),
    "it says why": ([replace(ACCEPTED, reason="held"), FILLED], [replace(ACCEPTED, reason="held"), FILLED]),
    "a fill before a fill": ([FILLED, replace(FILLED, broker_seq=12)], [FILLED, replace(FILLED, broker_seq=12)]),
}


@pytest.mark.parametrize(("arrived", "told"), SUPERSEDED.values(), ids=SUPERSEDED)
def test_only_an_acceptance_that_a_later_statement_contains_is_left_out(
    arrived: list[BrokerUpdate], told: list[BrokerUpdate]
) -> None:
    assert without_superseded(arrived) == told


def test_a_published_execution_is_known_under_either_feeds_event_id() -> None:
    memory = Memory()
    memory.add([TRADE])
    assert memory.knows(TRADE)
    assert memory.knows(replace(TRADE, event_id=uuid4(), source=UpdateSource.BACKFILL))
    assert not memory.knows(replace(TRADE, event_id=uuid4(), exec_id="exec-2"))
    # A bust under the id of the trade it ends is news.
    assert not memory.knows(replace(TRADE, event_id=uuid4(), exec_type=ExecType.TRADE_CANCEL))


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    memory = Memory(size=4)
    updates = [replace(TRADE, event_id=uuid4(), exec_id=str(number)) for number in range(5)]
    memory.add(updates)
    assert [memory.knows(update) for update in updates] == [False, False, False, True, True]


def test_a_log_that_gives_an_offset_again_has_lost_what_was_published() -> None:
    memory = Memory()
    memory.add([TRADE])
    assert memory.check([("broker-fill", 0, 7), ("broker-fill", 1, 3)], before={})
    assert memory.check([("broker-fill", 0, 8)], before={("broker-fill", 0): 7})
    # Another one that was on its way at the same time, and one that Kafka had already and gives no place.
    assert memory.check([("broker-fill", 0, 6), ("broker-fill", 0, -1)], before={})
    assert (memory.knows(TRADE), memory.take_lost()) == (True, False)
    assert not memory.check([("broker-fill", 0, 5)], before=memory.ends)
    assert not memory.knows(TRADE)
    assert (memory.take_lost(), memory.take_lost()) == (True, False)
    assert memory.check([("broker-fill", 0, 6)], before=memory.ends)


def test_the_pause_has_full_jitter_under_a_limit_that_doubles_to_its_cap() -> None:
    back_off = BackOff(base_s=1.0, cap_s=8.0)

    def longest(of: Sequence[float]) -> float:
        return max(of)

    for limit in (1.0, 2.0, 4.0, 8.0, 8.0):
        failures = back_off.failures
        pauses = []
        for _ in range(200):
            back_off.failures = failures
            pauses.append(back_off.next_s())
        assert limit * 0.8 < longest(pauses) <= limit
        assert min(pauses) < limit * 0.2
    back_off.reset()
    assert back_off.next_s() <= 1.0


async def test_a_race_ends_as_its_first_and_waits_for_the_others_to_stop() -> None:
    stopped = []

    async def lasting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.append(True)

    async def failing() -> None:
        raise LookupError("first")

    async def ending() -> None:
        await asyncio.sleep(0)

    async def cancelling_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(LookupError):
        await race(lasting(), failing())
    await race(ending(), lasting())
    with pytest.raises(EndedUnasked):
        await race(cancelling_itself(), lasting())
    assert stopped == [True, True, True]


def test_the_settings_are_read_from_the_environment() -> None:
    settings = read(BrokerGatewaySettings, ENVIRONMENT)
    assert settings.broker_account_id == "acc-1"
    assert settings.backfill_interval_s == 30.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BROKER_ACCOUNT_ID", "", "BROKER_GATEWAY_BROKER_ACCOUNT_ID"),
        ("BROKER_STREAM_URL", "http://127.0.0.1/stream", "ws:// or wss://"),
        ("BROKER_STREAM_URL", "ws://broker.example/stream", "BROKER_GATEWAY_ALLOW_PLAINTEXT"),
        ("BACKFILL_INTERVAL_S", "0", "BROKER_GATEWAY_BACKFILL_INTERVAL_S"),
        ("BACKFILL_INTERVAL_S", "60", "BROKER_GATEWAY_BACKFILL_OVERLAP_S"),
        ("BACKFILL", "on", "not a setting"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: str, message: str) -> None:
    with pytest.raises(BadSetting) as refused:
        read(BrokerGatewaySettings, {**ENVIRONMENT, f"BROKER_GATEWAY_{name}": value})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_backfill_that_fails_is_done_again_and_ends_nothing() -> None:
    """A query that the database gave up used to end the stream beside it."""
    canceled = DATABASE_AWAY[0]("SELECT", {}, Exception("canceling statement due to statement timeout"))
    fails: list[Exception] = [canceled, BrokerUnavailable("busy"), CommitUnknown()]
    done = asyncio.Event()

    async def run_once() -> int:
        if fails:
            raise fails.pop(0)
        done.set()
        return 0

    pace = Pace(
        backfill_interval_s=9,
        backfill_overlap_s=0,
        reconnect_base_s=0.001,
        reconnect_cap_s=0.002,
        takeover_poll_s=1,
    )
    keeping = asyncio.create_task(keep_backfilling(run_once, asyncio.Event(), pace))
    await asyncio.wait_for(done.wait(), 10)
    assert not keeping.done()
    keeping.cancel()


def test_an_execution_without_a_name_is_given_up_after_some_tries_and_some_time() -> None:
    patience = Patience(tries=3, for_s=60)
    for now in (0.0, 1.0, 2.0, 59.0):
        assert patience.lasts("one", now=now)
        patience.count(["one"], now=now)
    assert not patience.lasts("one", now=60.0)
    assert Patience(tries=3, for_s=0).lasts("two", now=1e6), "it was never asked about before"
