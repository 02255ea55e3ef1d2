"""Somebody else trades on the account, in orders that nobody here can read: ours are backfilled all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_gateway.backfill import Backfill, Patience
from broker_simulator.control import MULTI_LEG, Behaviour, FillAtOnce, Shown
from broker_simulator.probe import RestProbe
from closeflow.broker import BrokerUnavailable, ExecutionPage
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.model import UpdateSource
from closeflow.kafka import KafkaConnection, open_producer
from tests.pipeline.relaying import Bench
from tests.pipeline.test_gateway import backfill_of, bench, cursor_of, engine

__all__ = ["bench", "engine"]


def incidents(bench: Bench) -> list[tuple[Any, ...]]:
    with psycopg.connect(bench.database.admin_dsn) as admin:
        query = "SELECT kind, severity, subject, count FROM incidents WHERE closed_at IS NULL ORDER BY kind"
        return admin.execute(query).fetchall()


@pytest.fixture
async def backfill(bench: Bench, engine: AsyncEngine) -> AsyncIterator[Backfill]:
    async with open_producer(KafkaConnection(bench.database.stack.kafka_bootstrap_servers)) as producer:
        yield backfill_of(bench, engine, producer, bench.broker)


async def test_a_foreign_multi_leg_fill_holds_up_nothing(bench: Bench, engine: AsyncEngine, backfill: Backfill) -> None:
    spread = Behaviour(execution=FillAtOnce(), shown=MULTI_LEG)
    bench.control.script(spread, client_order_id="their-spread")
    bench.control.script(Behaviour(execution=FillAtOnce()))
    theirs, ours = RestProbe(bench.simulator).post("their-spread", qty="2"), await bench.place()
    assert (theirs.json()["symbol"], theirs.json()["side"]) == (None, None)
    assert await backfill.run_once() == 2
    (fill,) = await bench.heard.wait_for_fills(ours, 6)
    assert await cursor_of(bench, engine) == fill.transact_time
    assert incidents(bench) == []


class Mute(AlpacaBroker):
    """Never says of which order the fills of one symbol are."""

    symbol = "MSFT"

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        whole = await super().executions(after=after, page=page)
        kept = tuple(one for one in whole.updates if one.symbol != self.symbol)
        lost = tuple(str(one.exec_id) for one in whole.updates if one.symbol == self.symbol)
        return replace(whole, updates=kept, unnamed=lost, doubtful=frozenset({self.symbol} if lost else ()))


def anew(bench: Bench, kind: type[AlpacaBroker]) -> AlpacaBroker:
    """The broker as a process sees it that has sent no order."""
    simulator = bench.simulator
    return kind(
        base_url=simulator.url,
        market_data_url=simulator.url,
        key_id=simulator.key_id,
        secret_key=simulator.secret_key,
        account_id=bench.account_id,
    )


async def test_an_execution_that_nobody_can_name_is_given_up_with_one_incident(
    bench: Bench, engine: AsyncEngine, backfill: Backfill
) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    mute = anew(bench, Mute)
    ours = await bench.place()
    for name in ("theirs-1", "theirs-2"):
        RestProbe(bench.simulator).post(name, symbol="MSFT", qty="1")
    backfill = replace(backfill, broker=mute, patience=Patience(tries=3, for_s=0))
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="2 executions without a name"):
            await backfill.run_once()
        assert await cursor_of(bench, engine) is None
    await backfill.run_once()
    (fill,) = await bench.heard.wait_for_fills(ours, 6)
    cursor = await cursor_of(bench, engine)
    assert cursor is not None
    assert cursor > fill.transact_time
    await backfill.run_once()
    assert incidents(bench) == [("execution_left_out", "warning", bench.account_id, 1)]
    await mute.aclose()


async def test_a_fill_whose_order_the_broker_does_not_show_yet_is_waited_for(
    bench: Bench, engine: AsyncEngine, backfill: Backfill
) -> None:
    """However often it is asked for meanwhile: an order that the broker took may be denied for seconds."""
    bench.control.script(Behaviour(execution=FillAtOnce(), visible_after_s=3))
    ours = await bench.place()
    broker = anew(bench, AlpacaBroker)
    backfill = replace(backfill, broker=broker, patience=Patience(tries=1))
    with pytest.raises(BrokerUnavailable, match="1 executions without a name"):
        await backfill.run_once()
    assert await cursor_of(bench, engine) is None
    async with asyncio.timeout(30):
        while await cursor_of(bench, engine) is None:
            with suppress(BrokerUnavailable):
                await backfill.run_once()
            await asyncio.sleep(0.1)
    await bench.heard.wait_for_fills(ours, 6)
    assert incidents(bench) == []
    await broker.aclose()


async def test_a_fill_with_a_long_average_and_without_times_is_passed_on(bench: Bench, backfill: Backfill) -> None:
    none = "0001-01-01T00:00:00Z"
    odd = Shown(
        order={"filled_avg_price": "100.1234567890123456789012345", "updated_at": none, "submitted_at": none},
        update={"timestamp": none, "position_qty": "n/a"},
        activity={"transaction_time": none, "price": "100.000000000000000000000"},
    )
    bench.control.script(Behaviour(execution=FillAtOnce(), shown=odd))
    by_backfill = await bench.place()
    await backfill.run_once()
    with bench.gateway():
        await bench.listening()
        by_stream = await bench.place()
        fills = [*await bench.heard.wait_for_fills(by_backfill, 6), *await bench.heard.wait_for_fills(by_stream, 6)]
    assert [(fill.last_qty, fill.broker_seq) for fill in fills] == [(Decimal(6), None)] * 2
    assert {fill.source for fill in fills} >= {UpdateSource.BACKFILL}
    assert all(abs(fill.transact_time - fill.received_at).total_seconds() < 60 for fill in fills)
