"""An answer is recorded on the very send that it answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.domain.model import Order, Send, SendAnswer, SendKind
from closeflow.storage.book.load import lock_books
from closeflow.storage.broker_breakers import BreakerRow, load_breaker, save_breaker
from closeflow.storage.core.engine import transaction
from closeflow.storage.order_sends import (
    Answered,
    UnansweredSend,
    answer_unbegun,
    begin_sends,
    record_answers,
    unanswered_sends,
)
from tests.conftest import Database
from tests.pipeline.submitting import until
from tests.storage.seeding import Owner, add_order, add_position, add_request, owner

CLAIMED = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def a_claim(db: Owner) -> Answered:
    """The answer to a claimed send of a planned order."""
    position_id = add_position(db)
    order_id = add_order(db, add_request(db, position_id, status="submitted"), position_id)
    db.execute(
        "INSERT INTO order_sends (client_order_id, kind, n, sender, started_at, lease_until)"
        " VALUES (%s, 'submit', 1, 'first', %s, %s)",
        (order_id, CLAIMED, CLAIMED + timedelta(seconds=30)),
    )
    return Answered(
        client_order_id=order_id,
        kind=SendKind.SUBMIT,
        n=1,
        sender="first",
        started_at=CLAIMED,
        answer=SendAnswer.UNKNOWN,
        again_in_s=60,
    )


STATE = """
    SELECT s.answer, o.status, round(extract(epoch FROM o.next_send_at - s.answered_at)),
           closeflow_now() - s.answered_at
    FROM order_sends s, orders o
"""


def state(db: Owner) -> tuple[Any, ...]:
    """The answer, the order's status, and how long after the answer the order is due again; the answer is of now."""
    *found, ago = db.execute(STATE).fetchone() or ()
    assert ago is None or timedelta(0) <= ago < timedelta(seconds=30)
    return tuple(found)


async def test_an_answer_ends_its_send_and_moves_its_order(database: Database, engine: AsyncEngine) -> None:
    with owner(database.admin_dsn) as db:
        answer = a_claim(db)
        async with transaction(engine) as tx:
            await record_answers(tx, answers=[answer])
        assert state(db) == ("unknown", "submit_unknown", 60)


@pytest.mark.parametrize("answer", [SendAnswer.NOT_SENT, SendAnswer.UNKNOWN])
@pytest.mark.parametrize(
    "other", [{"sender": "second"}, {"started_at": CLAIMED - timedelta(seconds=1)}], ids=["sender", "time"]
)
async def test_a_claim_that_was_lost_with_its_commit_does_not_answer_the_next_claim_of_its_number(
    database: Database, engine: AsyncEngine, other: dict[str, Any], answer: SendAnswer
) -> None:
    """The second claim may be on the wire: `not_sent` would let the order be sent again, or be withdrawn, beside it."""
    with owner(database.admin_dsn) as db:
        lost = replace(a_claim(db), answer=answer, **other)
        async with transaction(engine) as tx:
            await record_answers(tx, answers=[lost])
        assert state(db) == (None, "planned", None)


async def test_a_second_answer_changes_neither_the_send_nor_its_order(database: Database, engine: AsyncEngine) -> None:
    with owner(database.admin_dsn) as db:
        answer = a_claim(db)
        async with transaction(engine) as tx:
            await record_answers(tx, answers=[replace(answer, answer=SendAnswer.NOT_ACCEPTED)])
        async with transaction(engine) as tx:
            await record_answers(tx, answers=[replace(answer, again_in_s=3600)])
        assert state(db) == ("not_accepted", "planned", 60)


async def test_the_database_makes_the_times_of_the_breaker(database: Database, engine: AsyncEngine) -> None:
    """However wrong the clock of the host is that opened it: written and read are durations."""
    row = BreakerRow(state="open", failures=5, refusals=0, probe_in_s=300.0)
    account = {"broker": "alpaca", "account_id": "A"}
    with owner(database.admin_dsn) as db:
        db.execute("INSERT INTO accounts (account_id, broker) VALUES ('A', 'alpaca') ON CONFLICT DO NOTHING")
        opened_at = []
        for state in ("open", "half_open", "closed", "open"):
            async with transaction(engine) as tx:
                await save_breaker(tx, **account, breaker=replace(row, state=state))
            opened_at += db.execute("SELECT opened_at FROM broker_breakers").fetchall()
    async with transaction(engine) as tx:
        found = await load_breaker(tx, **account)
    assert found is not None
    assert found.probe_in_s is not None
    assert 270 < found.probe_in_s <= 300
    assert replace(found, probe_in_s=300.0) == row
    assert (opened_at[0], opened_at[2]) == (opened_at[1], (None,))
    assert opened_at[3] > opened_at[0]


async def claimed(db: Owner, engine: AsyncEngine) -> tuple[tuple[Order, Send], UnansweredSend]:
    """A claim as its sender has it, not begun, and as another instance sees it."""
    answer = a_claim(db)
    db.execute("UPDATE order_sends SET begun_at = NULL")
    async with transaction(engine) as tx:
        books = await lock_books(tx, position_ids=[row[0] for row in db.execute("SELECT id FROM positions")])
        [order] = [one for book in books.values() for one in book.orders.values()]
        assert order.client_order_id == answer.client_order_id
        [seen] = await unanswered_sends(tx, account_id=order.account_id, most=9)
    return (order, order.sends[0]), seen


async def test_a_claim_that_has_not_begun_is_answered_by_another_and_then_refused_to_its_sender(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        mine, seen = await claimed(db, engine)
        assert (seen.begun, seen.lease_over) == (False, True)
        async with transaction(engine) as tx:
            assert await answer_unbegun(tx, sends=[seen]) == [seen.client_order_id]
        async with transaction(engine) as tx:
            assert await begin_sends(tx, sends=[mine]) == set()
        assert state(db) == ("not_sent", "planned", 0)


async def test_a_claim_that_has_begun_is_nobodys_to_answer(database: Database, engine: AsyncEngine) -> None:
    with owner(database.admin_dsn) as db:
        mine, seen = await claimed(db, engine)
        async with transaction(engine) as tx:
            assert await begin_sends(tx, sends=[mine]) == {(seen.client_order_id, "submit", 1)}
        async with transaction(engine) as tx:
            assert await answer_unbegun(tx, sends=[seen]) == []
        assert state(db) == (None, "planned", None)


async def test_a_claim_that_has_begun_is_answered_where_it_is_proven_that_nothing_left(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        mine, seen = await claimed(db, engine)
        async with transaction(engine) as tx:
            await begin_sends(tx, sends=[mine])
        async with transaction(engine) as tx:
            assert await answer_unbegun(tx, sends=[], though_begun=[replace(seen, sender="another")]) == []
            assert await answer_unbegun(tx, sends=[], though_begun=[seen]) == [seen.client_order_id]
        assert state(db) == ("not_sent", "planned", 0)


async def test_another_claim_of_the_number_begins_by_itself(database: Database, engine: AsyncEngine) -> None:
    with owner(database.admin_dsn) as db:
        (order, send), _ = await claimed(db, engine)
        async with transaction(engine) as tx:
            assert await begin_sends(tx, sends=[(order, replace(send, sender="second"))]) == set()


@pytest.mark.parametrize("first_begins", [True, False])
async def test_of_a_beginning_and_an_answer_at_once_one_gives_way(
    database: Database, engine: AsyncEngine, first_begins: bool
) -> None:
    """The second waits for the first one's row and finds it as that left it."""
    with owner(database.admin_dsn) as db:
        mine, seen = await claimed(db, engine)

        async def begin() -> int:
            async with transaction(engine) as tx:
                return len(await begin_sends(tx, sends=[mine]))

        async def answer() -> int:
            async with transaction(engine) as tx:
                return len(await answer_unbegun(tx, sends=[seen]))

        async with transaction(engine) as tx:
            if first_begins:
                await begin_sends(tx, sends=[mine])
            else:
                await answer_unbegun(tx, sends=[seen])
            second = asyncio.create_task(answer() if first_begins else begin())
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
            await until(lambda: db.execute(waiting, (database.name,)).fetchone() != (0,), "the second waits")
        assert await second == 0


async def test_a_claim_of_a_sender_that_knows_nothing_of_beginnings_counts_as_begun(
    database: Database, engine: AsyncEngine
) -> None:
    """Old and new order-submitters run side by side during a deployment."""
    with owner(database.admin_dsn) as db:
        a_claim(db)
        assert db.execute("SELECT begun_at IS NOT NULL FROM order_sends").fetchone() == (True,)
