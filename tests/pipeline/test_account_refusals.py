"""A broker that takes no new order of an account fails no close."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker_simulator.control import Outage
from broker_simulator.process import SimulatorProcess
from tests.pipeline.submitting import Bench, open_bench

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), {"oversell": "allow"}) as running:
        yield running


@pytest.fixture
async def bench(module_database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(module_database, simulator, tmp_path) as made:
        yield made


@pytest.mark.parametrize("message", ["new orders are rejected by user request", "the moon is wrong"])
async def test_closes_wait_while_the_broker_takes_no_order_of_the_account(bench: Bench, message: str) -> None:
    """Whether the words are known to mean that, or several closes are refused in them."""
    bench.control.outage(Outage(kind="account_refused", message=message))
    closes = [bench.add_request() for _ in range(4)]
    with bench.submitter(breaker_probe_s="0.5"):
        await bench.ask(*closes)
        told = partial(bench.incidents, bench.account_id)
        await bench.until(lambda: told() == {"broker_refuses_orders"}, "an incident is open", within_s=60)
        bench.control.clear_outages()
        for one in closes:
            await bench.hear(one, within_s=60)
        await bench.until(
            lambda: all(bench.sends(one)[-1] == "accepted" for one in closes), "all are taken", within_s=60
        )
    assert {answer for one in closes for answer in bench.sends(one)} <= {"not_accepted", "accepted"}
    kinds = bench.query("SELECT kind FROM incidents WHERE subject = %(id)s", id=bench.account_id)
    assert [one["kind"] for one in kinds] == ["broker_refuses_orders"]
    assert [bench.incidents(one) for one in closes] == [set()] * 4
