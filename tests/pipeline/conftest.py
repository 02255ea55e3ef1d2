"""What the tests of the reconciler's jobs share: its own role in the database, its broker, and orders to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker_simulator.process import SimulatorProcess
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine
from tests.pipeline.submitting import Bench, open_bench

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """A broker for the tests of one file; one that needs a broker of another kind makes its own."""
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), {"oversell": "allow"}) as running:
        yield running


@pytest.fixture
async def bench(database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(database, simulator, tmp_path) as made:
        made.control.reset()
        yield made


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Engine]:
    """The reconciler's own role, so that what it may not do fails here."""
    made = make_engine(database.dsn("closeflow_reconciler"), pool_size=4, application_name="test")
    yield made
    await made.dispose()


@pytest.fixture
async def broker(bench: Bench) -> AsyncIterator[AlpacaBroker]:
    made = AlpacaBroker(
        base_url=bench.simulator.url,
        market_data_url=bench.simulator.url,
        key_id=bench.simulator.key_id,
        secret_key=bench.simulator.secret_key,
        account_id=bench.account_id,
    )
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def unreachable(bench: Bench) -> AsyncIterator[AlpacaBroker]:
    """The account at a broker that nobody reaches."""
    made = AlpacaBroker(
        base_url="http://127.0.0.1:9",
        market_data_url="http://127.0.0.1:9",
        key_id="k",
        secret_key="s",
        account_id=bench.account_id,
    )
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def office(database: Database) -> AsyncIterator[Engine]:
    """The operators' role."""
    made = make_engine(database.dsn("closeflow_operator"), pool_size=2, application_name="test")
    yield made
    await made.dispose()
