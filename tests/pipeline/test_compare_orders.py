"""After a promotion or a restore of the database: nothing is sent before the broker's orders were compared."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from broker_simulator.control import Behaviour, NeverFill
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import OrderType, Side, TimeInForce
from closeflow.domain.sending.broker_answers import Acknowledged
from closeflow.domain.sending.ticket import Ticket
from closeflow.operating.acting import Operator
from closeflow.operating.adjusting import adjust_position
from closeflow.operating.incidents import close_incident_by_hand
from closeflow.storage.close_requests import lock_books_to_accept
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine, transaction
from closeflow.storage.trading_controls import lock_controls
from reconciler.jobs.compare_orders import CompareOrders
from tests.pipeline.filling import add_order
from tests.pipeline.submitting import Bench

AT_ONCE: Final = timedelta(0)
NOT_RECORDED: Final = "order_not_recorded"


def job_of(bench: Bench, engine: Engine, broker: AlpacaBroker, *, forever: bool = False) -> CompareOrders:
    return CompareOrders(engine, broker, bench.producer, AT_ONCE, forever)


def promoted(bench: Bench) -> None:
    """As the database looks after a promotion: what it noted last is another history."""
    bench.execute("UPDATE account_histories SET history = '1/1'")


async def seen(bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
    """The reconciler has run before it happens."""
    assert await job_of(bench, engine, broker).once() == 0
    promoted(bench)


async def halted(bench: Bench) -> bool:
    """As an order-submitter sees the account in the transaction that claims a send."""
    engine = make_engine(bench.database.dsn("closeflow_order_submitter"), pool_size=1, application_name="test")
    try:
        async with transaction(engine) as tx:
            return (await lock_controls(tx, account_id=bench.account_id)).controls.halted
    finally:
        await engine.dispose()


async def send(broker: AlpacaBroker, symbol: str, order_id: str) -> None:
    """What a sender sent, and the database lost."""
    ticket = Ticket(
        client_order_id=order_id,
        account_id=broker.account_id,
        symbol=symbol,
        side=Side.SELL,
        quantity=Decimal(10),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        limit_price=Decimal("1.00"),
    )
    assert isinstance(await broker.submit(ticket), Acknowledged)


def open_position(bench: Bench) -> tuple[int, str]:
    """One of which the database lost the close: it is simply open."""
    request_id = bench.add_request()
    bench.execute("DELETE FROM close_requests WHERE id = %(id)s", id=request_id)
    row = bench.position(request_id)
    bench.execute(
        "UPDATE positions SET status = 'open', active_close_request_id = NULL WHERE id = %(id)s", id=row["id"]
    )
    return row["id"], row["symbol"]


def incidents(bench: Bench) -> list[tuple[str, int | None, UUID | None]]:
    rows = bench.query(
        "SELECT kind, position_id, close_request_id FROM incidents WHERE closed_at IS NULL ORDER BY kind, position_id"
    )
    return [(row["kind"], row["position_id"], row["close_request_id"]) for row in rows]


async def test_an_account_is_halted_from_the_promotion_until_the_orders_are_compared(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    assert not await halted(bench), "no reconciler has looked after it yet"
    await seen(bench, engine, broker)
    assert await halted(bench)

    waits = job_of(bench, engine, broker)
    waits.settle_after = timedelta(hours=1)
    assert await waits.once() == 0
    assert await halted(bench), "a send may still be on its way"
    assert incidents(bench) == [("database_changed_history", None, None)]

    bench.query(
        "INSERT INTO incidents (kind, severity, detail)"
        """ VALUES ('database_changed_history', 'critical', '{"subject": "another"}') RETURNING id"""
    )
    assert await job_of(bench, engine, broker).once() == 0
    assert not await halted(bench)
    await job_of(bench, engine, broker).once()
    left = bench.query("SELECT subject FROM incidents WHERE closed_at IS NULL")
    assert [one["subject"] for one in left] == ["another"], "that account's own reconciler compares its orders"


async def test_an_order_of_a_close_that_is_lost_keeps_its_position_from_being_closed_again(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    position_id, symbol = open_position(bench)
    other, _ = open_position(bench)
    await seen(bench, engine, broker)
    await send(broker, symbol, client_order_id(uuid4(), 1))

    assert await job_of(bench, engine, broker).once() == 1

    assert incidents(bench) == [(NOT_RECORDED, position_id, None)]
    async with transaction(engine) as tx:
        keys = [(position_id, "k"), (other, "k")]
        books = (await lock_books_to_accept(tx, keys=keys, visible={position_id: None, other: None})).books
    assert books[position_id].position.exposure_unproven
    assert not books[other].position.exposure_unproven
    assert not await halted(bench), "the others go on"


async def test_a_resting_order_is_found_and_told_too(bench: Bench, engine: Engine, broker: AlpacaBroker) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    position_id, symbol = open_position(bench)
    await seen(bench, engine, broker)
    await send(broker, symbol, client_order_id(uuid4(), 1))
    assert await job_of(bench, engine, broker).once() == 1
    assert incidents(bench) == [(NOT_RECORDED, position_id, None)]


async def test_a_close_whose_order_is_lost_is_frozen_where_its_id_may_be_taken_twice(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    await seen(bench, engine, broker)
    await send(broker, bench.request(request_id)["symbol"], client_order_id(request_id, 1))

    assert await job_of(bench, engine, broker).once() == 1

    assert bench.request(request_id)["frozen_reason"] == NOT_RECORDED
    ((kind, position_id, told),) = incidents(bench)
    assert (kind, position_id, told) == (NOT_RECORDED, bench.position(request_id)["id"], request_id)


async def test_it_goes_on_by_itself_where_the_broker_refuses_a_second_order_of_an_id(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    await seen(bench, engine, broker)
    order_id = client_order_id(request_id, 1)
    await send(broker, bench.request(request_id)["symbol"], order_id)

    assert await job_of(bench, engine, broker, forever=True).once() == 1
    assert incidents(bench) == []
    with bench.submitter():
        await bench.ask(request_id)
        await bench.hear(request_id, 2)
    assert bench.control.order(order_id).accepted == 1


async def test_an_order_of_which_only_the_send_is_lost_is_waited_for(
    bench: Bench, engine: Engine, broker: AlpacaBroker
) -> None:
    request_id = bench.add_request()
    add_order(bench, request_id)
    await seen(bench, engine, broker)
    await send(broker, bench.request(request_id)["symbol"], client_order_id(request_id, 1))
    job = job_of(bench, engine, broker)

    assert await job.once() == 0
    assert await halted(bench), "sent again, it might be a second order"

    assert await bench.hear(request_id), "what the broker says of it is published, for the fill-processor"
    bench.name_at_broker(request_id)
    assert await job.once() == 0
    assert not await halted(bench)
    assert incidents(bench) == []


async def test_a_broker_that_gives_no_answer_leaves_the_account_halted(
    bench: Bench, engine: Engine, broker: AlpacaBroker, unreachable: AlpacaBroker
) -> None:
    await seen(bench, engine, broker)
    assert await job_of(bench, engine, unreachable).once() == 0
    assert await halted(bench)


async def test_an_operator_settles_it_by_what_the_broker_says(
    bench: Bench, engine: Engine, broker: AlpacaBroker, office: Engine
) -> None:
    request_id = bench.add_request()
    await seen(bench, engine, broker)
    await send(broker, bench.request(request_id)["symbol"], client_order_id(request_id, 1))
    await job_of(bench, engine, broker).once()
    operator = Operator(by="me", reason="the broker's confirmation of the day")

    done = await adjust_position(
        office, bench.position(request_id)["id"], Decimal(-10), operator, expected=None, dry=False
    )
    (incident,) = bench.query("SELECT id FROM incidents WHERE closed_at IS NULL AND kind = %(kind)s", kind=NOT_RECORDED)
    closed = await close_incident_by_hand(office, incident["id"], operator)

    assert (bench.position(request_id)["status"], bench.request(request_id)["status"]) == ("closed", "completed"), (
        done,
        closed,
    )
