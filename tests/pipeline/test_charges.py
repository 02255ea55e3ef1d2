"""Commission with a trade, a fee that the broker lists days later: from its activities to the books, as our roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from broker_simulator.control import Behaviour, FillAtOnce, Shown
from closectl.verifying.report import Looked
from closectl.verifying.run import check_database
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.contracts import BROKER_FILL, BrokerFillV1, broker_fill_key, encode
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import BrokerUpdate
from closeflow.domain.retry import RetryPolicy
from closeflow.kafka import Record
from closeflow.storage.core.engine import make_engine
from closeflow.storage.verify.ledger_rows import load_ledger
from closeflow.storage.verify.snapshot import snapshot
from fill_processor.batch_transaction import Processor
from reconciler.charges import ChargesTold, tell_charges
from reconciler.jobs.import_non_trades import ImportNonTrades
from tests.pipeline.filling import published
from tests.pipeline.reconciling import place
from tests.pipeline.submitting import Bench

if TYPE_CHECKING:
    from closeflow.storage.core.engine import Database as Engine
    from tests.conftest import Database

LONG_AGO = timedelta(days=1)


@pytest.fixture
async def processor(database: Database) -> AsyncIterator[Processor]:
    engine = make_engine(database.dsn("closeflow_fill_processor"), pool_size=2, application_name="test")
    yield Processor(engine, RetryPolicy())
    await engine.dispose()


def heard(update: BrokerUpdate, offset: int) -> Record[BrokerFillV1]:
    value = BrokerFillV1.from_domain(update)
    return Record(
        topic=BROKER_FILL,
        partition=0,
        offset=offset,
        key=broker_fill_key(update.client_order_id),
        value=value,
        raw=encode(value),
        headers=(),
        timestamp=datetime.now(UTC),
    )


def books(bench: Bench) -> list[tuple[str, ...]]:
    """What accounting is told, in the order in which it was written."""
    amounts = ("cash_amount", "commission", "fees", "net_amount")
    rows = bench.query(
        "SELECT event_type, payload FROM outbox_events WHERE topic = 'execution-events' ORDER BY xact_id"
    )
    return [(row["event_type"], *(str(row["payload"].get(name)) for name in amounts)) for row in rows]


async def charges(office: Engine) -> list[tuple[Decimal, Decimal]]:
    """Commission and fees of each order, as they are compared with the events."""
    async with snapshot(office) as tx:
        return [(one.commission, one.fees) for one in (await load_ledger(tx)).charges]


async def test_what_the_broker_charges_is_booked_once_whenever_it_says_so(
    bench: Bench, engine: Engine, broker: AlpacaBroker, processor: Processor, office: Engine
) -> None:
    shown = Shown(activity={"commission": "1.25"})
    bench.control.script(Behaviour(execution=FillAtOnce(price=Decimal(100)), shown=shown))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    bench.execute("UPDATE orders SET symbol = 'AAPL'")  # As the ticket has it.
    page = await broker.executions(after=datetime.now(UTC) - LONG_AGO)
    await processor.process_batch([heard(one, n) for n, one in enumerate(page.updates)])
    recorded = ("EXECUTION_RECORDED", "1000", "1.25", "0", "998.75")
    assert books(bench) == [recorded]

    (order,) = bench.control.order(client_order_id(request_id, 1)).orders
    (execution,) = order.executions
    bench.control.charge(execution.execution_id, "0.07")
    job = ImportNonTrades(engine, broker, bench.producer, timedelta(days=7), pages=5)
    await job.once()
    (told,) = await published(bench, 1)
    await processor.process_batch([told])
    await processor.process_batch([told])
    await job.once()
    late = ("EXECUTION_CHARGED", "0", "0", "0.07", "-0.07")
    assert books(bench) == [recorded, late], "and the job tells no more of what is booked"

    assert await charges(office) == [(Decimal("1.25"), Decimal("0.07"))]

    bench.control.bust(execution.execution_id)
    page = await broker.executions(after=datetime.now(UTC) - LONG_AGO)
    await processor.process_batch([heard(one, 10 + n) for n, one in enumerate(page.updates)])
    assert books(bench) == [recorded, late, ("EXECUTION_REVERSED", "-1000", "-1.25", "0", "-998.75")]
    assert await charges(office) == [(Decimal(0), Decimal("0.07"))], "what came by itself is given back by itself"
    async with snapshot(office) as tx:
        _, findings = await check_database(tx)
    assert [one for one in findings if isinstance(one, Looked) and one.invariant == 16 and one.violations] == []


async def test_a_charge_of_somebody_else_s_order_is_none_of_ours(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce(price=Decimal(100))))
    request_id = bench.add_request()
    await place(bench, broker, request_id)
    (order,) = bench.control.order(client_order_id(request_id, 1)).orders
    bench.control.charge(order.executions[0].execution_id, "0.07")
    bench.execute("UPDATE orders SET broker_order_id = 'another'")
    listed = (await broker.non_trades(after=datetime.now(UTC) - LONG_AGO)).activities
    assert [one.charge is not None for one in listed] == [True]
    key = {"broker": "alpaca", "account_id": bench.account_id}
    assert await tell_charges(engine, bench.producer, listed, ChargesTold(), **key) == 0
