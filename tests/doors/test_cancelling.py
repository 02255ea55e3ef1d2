"""A caller stops its close: withdrawn before sending, cancelled at the broker after, each time with a record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest

from close_api.auth.caller import Scope
from close_api.errors import Code, Problem
from close_api.use_cases.cancelling import NO_REASON, Cancelling
from close_api.use_cases.reading import Reading
from closeflow.domain.model import BrokerStatus, OrderStatus, PositionStatus, RequestStatus
from closeflow.storage.close_requests import RequestState
from closeflow.storage.core.engine import make_engine
from tests.closectl.seeding import ACCOUNT, REQUESTS, Closes, order_id
from tests.conftest import Database
from tests.doors.books import (
    COMPLETED,
    FAILED,
    MINE,
    NOWHERE,
    PENDING,
    STRANGER,
    TRACE,
    TRACEPARENT,
    WORKING,
    caller,
    closes,
    pool,
    run,
)

ACTIONS: Final = "SELECT by, action, subject, reason, account_id, trace_id FROM operator_actions ORDER BY id"


@pytest.fixture
async def made(database: Database) -> AsyncIterator[Closes]:
    async with closes(database) as these:
        yield these


@pytest.fixture
async def cancelling(database: Database) -> AsyncIterator[Cancelling]:
    async with pool(database) as engine:
        yield Cancelling(engine, 5.0)


async def cancel(
    cancelling: Cancelling, request_id: UUID, *, reason: str | None = "the desk keeps it", who: Any = MINE
) -> RequestState:
    return await cancelling.cancel(who, request_id, reason=reason, traceparent=TRACEPARENT)


def recorded(database: Database) -> list[tuple[Any, ...]]:
    return run(database, ACTIONS)


async def test_what_nobody_sent_is_withdrawn(database: Database, made: Closes, cancelling: Cancelling) -> None:
    request, position = await cancel(cancelling, PENDING)
    assert (request.status, request.reason) == (RequestStatus.FAILED, "canceled_by_user")
    assert (position.status, position.active_close_request_id) == (PositionStatus.OPEN, None)
    assert recorded(database) == [("desk", "cancel", str(PENDING), "the desk keeps it", ACCOUNT, TRACE)]
    moves = "SELECT by, reason FROM status_history WHERE to_status = 'failed' AND entity_id = %s"
    assert run(database, moves, str(PENDING)) == [("desk", "the desk keeps it")]
    told = "SELECT event_type FROM outbox_events WHERE close_request_id = %s ORDER BY occurred_at DESC LIMIT 1"
    assert run(database, told, PENDING) == [("CLOSE_REQUEST_FAILED",)]


async def test_what_works_at_the_broker_is_cancelled_there(
    database: Database, made: Closes, cancelling: Cancelling
) -> None:
    request, position = await cancel(cancelling, WORKING)
    assert (request.status, position.status) == (RequestStatus.SUBMITTED, PositionStatus.CLOSING)
    assert request.cancel_requested_at is not None
    order = "SELECT status, cancel_requested_at IS NOT NULL FROM orders WHERE client_order_id = %s"
    assert run(database, order, order_id(3)) == [(OrderStatus.PENDING_CANCEL, True)]
    await made.state(3, BrokerStatus.CANCELED, cum="2")
    over, position = await cancel(cancelling, WORKING)
    assert (over.status, over.reason, over.filled_quantity) == (RequestStatus.FAILED, "canceled_by_user", Decimal(2))
    assert position.status is PositionStatus.OPEN
    assert len(recorded(database)) == 1


async def test_what_waits_for_its_next_attempt_is_given_up(
    database: Database, made: Closes, cancelling: Cancelling
) -> None:
    await made.accept(6)
    await made.submit(6)
    await made.state(6, BrokerStatus.CANCELED, cum="0")
    assert run(database, "SELECT status FROM close_requests WHERE id = %s", REQUESTS[6]) == [("retryable",)]
    request, position = await cancel(cancelling, REQUESTS[6])
    assert (request.status, request.reason) == (RequestStatus.FAILED, "canceled_by_user")
    assert position.status is PositionStatus.OPEN


@pytest.mark.parametrize("request_id", [COMPLETED, FAILED])
async def test_what_ended_otherwise_is_told(
    database: Database, made: Closes, cancelling: Cancelling, request_id: UUID
) -> None:
    with pytest.raises(Problem) as refused:
        await cancel(cancelling, request_id)
    status = "completed" if request_id == COMPLETED else "failed"
    reasons = refused.value.extra["reasons"]
    assert isinstance(reasons, list)
    assert refused.value.code is Code.CLOSE_REQUEST_FINISHED
    assert [one.partition(" (")[0] for one in reasons] == [f"request {request_id} is {status}"]
    assert recorded(database) == []


async def test_a_repeated_cancel_gives_the_state_and_changes_nothing(
    database: Database, made: Closes, cancelling: Cancelling
) -> None:
    for request_id in (PENDING, WORKING):
        first = await cancel(cancelling, request_id)
        assert await cancel(cancelling, request_id, reason=None) == first
    assert [row[2] for row in recorded(database)] == [str(PENDING), str(WORKING)]


async def test_of_many_cancels_at_once_one_is_done(database: Database, made: Closes, cancelling: Cancelling) -> None:
    found = await asyncio.gather(*(cancel(cancelling, WORKING) for _ in range(6)))
    assert {one[0].cancel_requested_at for one in found} == {found[0][0].cancel_requested_at}
    assert len(recorded(database)) == 1


async def test_a_frozen_close_ends_once_it_is_let_go(database: Database, made: Closes, cancelling: Cancelling) -> None:
    run(database, "UPDATE close_requests SET frozen_reason = 'poison' WHERE id = %s", PENDING)
    request, _ = await cancel(cancelling, PENDING)
    assert (request.status, request.frozen_reason) == (RequestStatus.PENDING, "poison")
    assert request.cancel_requested_at is not None
    assert (await cancel(cancelling, PENDING))[0] == request
    assert len(recorded(database)) == 1


async def test_a_cancel_without_a_reason_has_one_in_its_record(
    database: Database, made: Closes, cancelling: Cancelling
) -> None:
    await cancel(cancelling, PENDING, reason=None, who=caller(ACCOUNT, subject="robot"))
    assert [(row[0], row[3]) for row in recorded(database)] == [("robot", NO_REASON)]


async def test_what_is_not_mine_is_not_there_and_is_not_even_waited_for(
    database: Database, made: Closes, cancelling: Cancelling
) -> None:
    with psycopg.connect(database.admin_dsn) as owner:
        owner.execute("SELECT FROM positions FOR UPDATE")
        for request_id in (WORKING, NOWHERE):
            with pytest.raises(Problem) as refused:
                await cancel(cancelling, request_id, who=STRANGER)
            assert (refused.value.code, refused.value.extra) == (Code.NOT_FOUND, {})
        with pytest.raises(Problem, match="unavailable"):
            await cancel(cancelling, WORKING)
    assert recorded(database) == []


async def test_a_cancel_needs_the_scope_to_write(cancelling: Cancelling) -> None:
    with pytest.raises(Problem, match="forbidden"):
        await cancel(cancelling, WORKING, who=caller(ACCOUNT, scopes=frozenset({Scope.READ, Scope.OPERATE})))


async def test_a_database_that_is_away_is_told() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")
    with pytest.raises(Problem, match="unavailable"):
        await cancel(Cancelling(engine, 5.0), WORKING)


async def test_the_timeline_tells_who_cancelled(database: Database, made: Closes, cancelling: Cancelling) -> None:
    await cancel(cancelling, WORKING)
    timeline = await Reading(cancelling.engine, 5.0).timeline(MINE, WORKING)
    (action,) = [one for one in timeline.facts if one.source == "operator_actions"]
    assert action.what == "cancel by desk"
    assert action.detail == {"subject": str(WORKING), "reason": "the desk keeps it", "trace_id": TRACE}


async def test_an_order_that_the_broker_has_not_spoken_of_is_cancelled_too(
    database: Database, made: Closes, cancelling: Cancelling
) -> None:
    await made.accept(6)
    await made.submit(6)
    request, position = await cancel(cancelling, REQUESTS[6])
    assert (request.status, position.status) == (RequestStatus.SUBMITTED, PositionStatus.CLOSING)
    order = "SELECT status, cancel_requested_at FROM orders WHERE client_order_id = %s"
    ((status, asked_at),) = run(database, order, order_id(6))
    assert (status, asked_at) == (OrderStatus.PLANNED, request.cancel_requested_at)
    await made.state(6, BrokerStatus.CANCELED, cum="0")
    assert (await cancel(cancelling, REQUESTS[6]))[0].reason == "canceled_by_user"
