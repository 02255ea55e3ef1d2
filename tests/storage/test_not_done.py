"""Which orders the gateway asks the broker about, read as its role."""

from __future__ import annotations

import pytest

from closeflow.storage.core.engine import make_engine, transaction
from closeflow.storage.due_work import not_done_orders
from tests.conftest import Database
from tests.storage.seeding import add_order, add_position, add_request, owner

# status, its sends' answers (None: open) -> is it asked about
ORDERS: dict[str, tuple[str, list[str | None], bool]] = {
    "a plan that waits for its turn": ("planned", [], False),
    "a plan that the broker did not take": ("planned", ["not_accepted", "not_sent"], False),
    "a plan whose send has no answer yet": ("planned", [None], True),
    "a plan whose second send has no answer yet": ("planned", ["not_accepted", None], True),
    "one whose fate is unknown": ("submit_unknown", ["unknown"], True),
    "one that works": ("new", ["accepted"], True),
    "one that is over": ("filled", ["accepted"], False),
}


@pytest.mark.parametrize(("status", "answers", "asked"), ORDERS.values(), ids=ORDERS)
async def test_only_what_may_be_at_the_broker_is_asked_about(
    database: Database, status: str, answers: list[str | None], asked: bool
) -> None:
    with owner(database.admin_dsn) as db:
        position_id = add_position(db)
        order_id = add_order(db, add_request(db, position_id), position_id, status=status)
        for n, given in enumerate(answers, start=1):
            db.execute(
                "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, answer, answered_at)"
                " VALUES (%s, 'submit', %s, 's', now(), %s, CASE WHEN %s::text IS NULL THEN NULL ELSE now() END)",
                (order_id, n, given, given),
            )
    gateway = make_engine(database.dsn("closeflow_broker_gateway"), pool_size=1, application_name="test")
    try:
        async with transaction(gateway) as tx:
            found = await not_done_orders(tx, account_id="acc", after="", limit=10)
    finally:
        await gateway.dispose()
    assert [one.client_order_id for one in found] == ([order_id] if asked else [])
