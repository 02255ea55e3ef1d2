"""An answer is recorded on the very send that it answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.domain.model import SendAnswer, SendKind
from closeflow.storage.engine import transaction
from closeflow.storage.submitting import Answered, BreakerRow, load_breaker, record_answers, save_breaker
from tests.conftest import Database
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
