"""Expiry, assignment, exercise, splits: from the broker's activities to our positions, as the reconciler's own role."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker_simulator.control import NonTrade, Outage, PositionSpec
from broker_simulator.process import SimulatorProcess
from closectl.verifying.report import Looked
from closectl.verifying.run import check_database
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.contracts.position_event import PositionEvent
from closeflow.domain.incidents import IncidentKind
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine
from closeflow.storage.verify.snapshot import snapshot
from reconciler.jobs.import_non_trades import ImportNonTrades
from tests.pipeline.submitting import Bench, open_bench

if TYPE_CHECKING:
    from tests.conftest import Database

CALL: Final = "AAPL270119C00200000"
PUT: Final = "MSFT270119P00300000"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
async def bench(database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(database, simulator, tmp_path) as made:
        made.control.reset()
        yield made


@pytest.fixture
def job(bench: Bench, engine: Engine, broker: AlpacaBroker) -> ImportNonTrades:
    return ImportNonTrades(engine, broker, bench.producer, timedelta(days=7), pages=5)


def hold(bench: Bench, symbol: str, quantity: int, *, there: int | None = None, asset_type: str = "option") -> int:
    """A position of ours, and what the broker holds of its symbol."""
    bench.execute(
        "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity, multiplier)"
        " VALUES (%(account)s, %(symbol)s, %(type)s, %(quantity)s, %(quantity)s, 1)",
        account=bench.account_id,
        symbol=symbol,
        type=asset_type,
        quantity=quantity,
    )
    held = [
        PositionSpec(symbol=one, asset_type="option" if one in (CALL, PUT) else "stock", quantity=some)
        for one, some in bench.control.positions().items()
    ]
    now = quantity if there is None else there
    bench.control.set_positions([*held, PositionSpec(symbol=symbol, asset_type=asset_type, quantity=Decimal(now))])
    (row,) = bench.query("SELECT max(id) AS id FROM positions")
    return int(row["id"])


def does(bench: Bench, activity_type: str, symbol: str, quantity: int, **said: Any) -> str:
    done = NonTrade(activity_type=activity_type, symbol=symbol, quantity=Decimal(quantity), **said)
    return bench.control.book_non_trade(done)


def position(bench: Bench, position_id: int) -> tuple[str, int]:
    (row,) = bench.query("SELECT status, quantity FROM positions WHERE id = %(id)s", id=position_id)
    return row["status"], int(row["quantity"])


def open_incidents(bench: Bench) -> list[tuple[str, str]]:
    rows = bench.query("SELECT kind, subject FROM incidents WHERE closed_at IS NULL ORDER BY id")
    return [(row["kind"], row["subject"]) for row in rows]


def detail(bench: Bench) -> str:
    (row,) = bench.query("SELECT detail ->> 'text' AS text FROM incidents WHERE closed_at IS NULL")
    return str(row["text"])


async def violations(bench: Bench) -> list[object]:
    engine = make_engine(bench.database.admin_dsn, pool_size=1, application_name="test")
    async with snapshot(engine) as tx:
        _, findings = await check_database(tx)
    await engine.dispose()
    return [one for part in findings if isinstance(part, Looked) for one in part.violations]


@pytest.mark.parametrize(
    ("activity_type", "held", "ending"), [("OPEXP", 2, "expired"), ("OPASN", -3, "assigned"), ("OPEXC", 1, "exercised")]
)
async def test_what_ended_at_the_broker_ends_here_for_that_reason(
    bench: Bench, job: ImportNonTrades, activity_type: str, held: int, ending: str
) -> None:
    position_id, other = hold(bench, CALL, held), hold(bench, PUT, 5)
    assert await job.once() == 0
    activity_id = does(bench, activity_type, CALL, -held)
    assert await job.once() == 1
    assert (position(bench, position_id), position(bench, other)) == (("closed", 0), ("open", 5))

    (event,) = bench.query("SELECT payload FROM outbox_events WHERE position_id = %(id)s", id=position_id)
    told = PositionEvent.model_validate(event["payload"])
    assert (told.event_type, told.quantity, told.reason) == ("POSITION_CLOSED", Decimal(0), ending)
    (row,) = bench.query("SELECT delta, reason, source, by FROM position_adjustments")
    assert (row["delta"], row["source"], row["by"]) == (-held, "broker", "reconciler")
    assert row["reason"].startswith(f"{ending}: {activity_type} {CALL} ")
    assert activity_id in row["reason"]
    history = (
        "SELECT by, reason FROM status_history WHERE entity = 'position' AND entity_id = %(id)s AND to_status = %(s)s"
    )
    (moved,) = bench.query(history, id=str(position_id), s="closed")
    assert (moved["by"], moved["reason"]) == ("reconciler", row["reason"])
    assert open_incidents(bench) == []
    assert await violations(bench) == []


async def test_an_activity_counts_once(bench: Bench, job: ImportNonTrades) -> None:
    hold(bench, CALL, 2)
    does(bench, "OPEXP", CALL, -2)
    assert await job.once() == 1
    again = hold(bench, CALL, 2, there=0)
    assert [await job.once() for _ in range(2)] == [0, 0]
    assert position(bench, again) == ("open", 2)
    assert len(bench.query("SELECT FROM position_adjustments")) == 1
    assert open_incidents(bench) == [], "nothing was even tried"


async def test_it_waits_for_a_close_to_end_and_says_so(bench: Bench, job: ImportNonTrades) -> None:
    position_id = hold(bench, CALL, 2)
    with bench.adding_request() as message:
        request_id = message.close_request_id
    bench.execute(
        "UPDATE close_requests SET position_id = %(id)s WHERE id = %(request)s", id=position_id, request=request_id
    )
    bench.execute("DELETE FROM positions WHERE id <> %(id)s", id=position_id)
    bench.execute(
        "UPDATE positions SET status = 'closing', active_close_request_id = %(request)s WHERE id = %(id)s",
        id=position_id,
        request=request_id,
    )
    activity_id = does(bench, "OPEXP", CALL, -2, date=f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
    assert [await job.once() for _ in range(2)] == [0, 0]
    assert position(bench, position_id) == ("closing", 2)
    assert open_incidents(bench) == [(IncidentKind.NON_TRADE_ACTIVITY_WAITS, f"{bench.account_id}/{activity_id}")]
    assert f"close {request_id} is pending" in detail(bench)

    bench.execute("UPDATE close_requests SET status = 'failed', reason = 'x' WHERE id = %(id)s", id=request_id)
    bench.execute("UPDATE positions SET status = 'close_failed', active_close_request_id = NULL")
    assert await job.once() == 1
    assert position(bench, position_id) == ("closed", 0)
    assert open_incidents(bench) == []


@pytest.mark.parametrize(
    ("activity_type", "symbol", "quantity", "verb"),
    [
        ("OPASN", CALL, -1, "closectl positions adjust"),
        ("SPLIT", "AAPL", 30, "--as reorganized"),
        ("NC", "AAPL", -10, "--as reorganized"),
        ("JNLS", "AAPL", -4, "closectl positions adjust"),
    ],
)
async def test_anything_else_is_told_once_and_changes_nothing(
    bench: Bench, job: ImportNonTrades, activity_type: str, symbol: str, quantity: int, verb: str
) -> None:
    held = [hold(bench, CALL, 2), hold(bench, "AAPL", 10, asset_type="stock")]
    before = [position(bench, one) for one in held]
    activity_id = does(bench, activity_type, symbol, quantity)
    assert await job.once() == 0
    assert open_incidents(bench) == [(IncidentKind.NON_TRADE_ACTIVITY, f"{bench.account_id}/{activity_id}")]
    assert verb in detail(bench)
    bench.execute("UPDATE incidents SET closed_at = now(), closed_by = 'ann', resolution = 'mended'")
    assert await job.once() == 0
    assert (open_incidents(bench), [position(bench, one) for one in held]) == ([], before)


async def test_what_is_not_ours_holds_up_nothing(bench: Bench, job: ImportNonTrades) -> None:
    position_id = hold(bench, CALL, 2)
    does(bench, "SPLIT", "TSLA", 30)
    does(bench, "OPEXP", PUT, -7, fields={"qty": "?"})
    does(bench, "DIV", "AAPL", 10, moves=False)
    does(bench, "CSD", "AAPL", 0, fields={"symbol": None, "qty": None})
    does(bench, "OPEXP", CALL, -2)
    assert await job.once() == 1
    assert position(bench, position_id) == ("closed", 0)
    assert open_incidents(bench) == []


async def test_one_that_cannot_be_read_is_told_once_and_holds_up_nothing(bench: Bench, job: ImportNonTrades) -> None:
    hold(bench, CALL, 2)
    unreadable = does(bench, "?", "?", 0, fields={"activity_type": None, "symbol": None})
    ours = does(bench, "OPEXP", PUT, -3, moves=False, fields={"symbol": CALL, "qty": "three"})
    does(bench, "OPEXP", CALL, -2)
    assert await job.once() == 1
    told = [(IncidentKind.NON_TRADE_ACTIVITY, f"{bench.account_id}/{one}") for one in (unreadable, ours)]
    assert open_incidents(bench) == told


async def test_what_happened_before_a_position_was_imported_is_not_of_it(bench: Bench, job: ImportNonTrades) -> None:
    does(bench, "OPASN", CALL, 2, date=f"{datetime.now(UTC) - timedelta(days=4):%Y-%m-%d}")
    position_id = hold(bench, CALL, -2, there=0)
    assert await job.once() == 0
    assert position(bench, position_id) == ("open", -2)
    assert open_incidents(bench) == []


async def test_a_broker_that_does_not_answer_changes_nothing_until_it_does(bench: Bench, job: ImportNonTrades) -> None:
    position_id = hold(bench, CALL, 2)
    does(bench, "OPEXP", CALL, -2)
    for path in ("/v2/account/activities", "/v2/positions"):
        bench.control.outage(Outage(kind="server_error", path_prefix=path))
        assert await job.once() == 0
        bench.control.clear_outages()
    assert (position(bench, position_id), open_incidents(bench)) == (("open", 2), [])
    assert await job.once() == 1


async def test_a_long_list_is_read_on_in_the_next_cycle(bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
    position_id = hold(bench, CALL, 2)
    for _ in range(100):
        does(bench, "DIV", "AAPL", 1, moves=False)
    does(bench, "OPEXP", CALL, -2)
    job = ImportNonTrades(engine, broker, bench.producer, timedelta(days=7), pages=1)
    assert [await job.once() for _ in range(2)] == [0, 1]
    assert position(bench, position_id) == ("closed", 0)
    (cursor,) = bench.query("SELECT position FROM broker_cursors")
    assert cursor["position"].startswith(f"{datetime.now(UTC):%Y-%m-%d}T00:00:00")
