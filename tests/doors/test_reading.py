"""What callers are shown: only what is theirs, page by page, and as it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from prometheus_client import REGISTRY

import devstack
from close_api.auth.caller import Scope
from close_api.errors import Code, Problem
from close_api.use_cases.reading import Changed, PositionFilter, Reading, RequestFilter
from closeflow.contracts.ids import new_close_request_id
from closeflow.domain.model import PositionStatus, RequestStatus
from closeflow.storage.core.engine import make_engine
from tests.closectl.seeding import ACCOUNT, REQUESTS, Closes
from tests.conftest import Database, fresh_database
from tests.doors.books import (
    COMPLETED,
    EVERYONE,
    FAILED,
    MINE,
    NOWHERE,
    PENDING,
    STRANGER,
    WORKING,
    caller,
    closes,
    fields,
    pool,
    run,
    until,
)

ASK: Final[tuple[Callable[[Reading, Any, UUID], Awaitable[object]], ...]] = (
    lambda reading, who, request: reading.request(who, request),
    lambda reading, who, request: reading.wait(who, request, wait_s=5),
    lambda reading, who, request: reading.timeline(who, request),
    lambda reading, who, request: anext(reading.watch(who, request, last_event_id=None)),
)


@pytest.fixture(scope="module")
async def kept(stack: devstack.Stack, template: str) -> AsyncIterator[Database]:
    """For the tests that change nothing."""
    with fresh_database(stack, template) as made:
        async with closes(made):
            run(
                made,
                "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity)"
                " SELECT 'main', 'S' || n, 'stock', 5, 5 FROM generate_series(1, 60) AS n",
            )
            yield made


@pytest.fixture(scope="module")
async def reading(kept: Database) -> AsyncIterator[Reading]:
    async with pool(kept) as engine:
        yield Reading(engine, 5.0)


@pytest.fixture
async def moving(database: Database) -> AsyncIterator[Closes]:
    async with closes(database) as made:
        yield made


@pytest.fixture
async def watching(database: Database) -> AsyncIterator[Reading]:
    async with pool(database) as engine:
        yield Reading(engine, 5.0, max_watchers=5, keep_alive_s=0.3)


@pytest.mark.parametrize("n", range(len(ASK)))
@pytest.mark.parametrize("who", [STRANGER, caller()], ids=["of another account", "of none"])
async def test_what_is_not_mine_is_not_there(reading: Reading, n: int, who: Any) -> None:
    answers = []
    for request in (WORKING, NOWHERE):
        with pytest.raises(Problem) as refused:
            await ASK[n](reading, who, request)
        answers.append((refused.value.code, refused.value.extra, refused.value.headers))
    assert answers[0] == answers[1] == (Code.NOT_FOUND, {}, {})


@pytest.mark.parametrize("position_id", [1, 9_000_000_000, 0, -1, 2**63])
async def test_a_position_that_is_not_mine_is_not_there(reading: Reading, position_id: int) -> None:
    with pytest.raises(Problem) as refused:
        await reading.position(STRANGER, position_id)
    assert (refused.value.code, refused.value.extra) == (Code.NOT_FOUND, {})


async def test_strangers_see_empty_lists(reading: Reading) -> None:
    for account in (None, ACCOUNT):
        requests = await reading.requests(STRANGER, RequestFilter(account=account), page_size=0, page_token="")
        positions = await reading.positions(STRANGER, PositionFilter(account=account), page_size=0, page_token="")
        assert (requests.items, requests.next_page_token) == ([], "")
        assert (positions.items, positions.next_page_token) == ([], "")


async def test_reading_needs_its_scope_and_writing_includes_it(reading: Reading) -> None:
    assert await reading.request(caller(ACCOUNT, scopes=frozenset({Scope.WRITE})), WORKING)
    with pytest.raises(Problem, match="forbidden"):
        await reading.request(caller(ACCOUNT, scopes=frozenset({Scope.OPERATE})), WORKING)


async def test_a_request_is_shown_with_its_position(reading: Reading) -> None:
    request, position = await reading.request(MINE, WORKING)
    assert (request.id, request.status, request.filled_quantity) == (WORKING, RequestStatus.SUBMITTED, Decimal(2))
    assert (position.id, position.status, position.quantity) == (3, PositionStatus.CLOSING, Decimal(-3))
    assert await reading.position(EVERYONE, 3) == position


async def test_requests_are_filtered(reading: Reading) -> None:
    async def found(**given: Any) -> list[UUID]:
        page = await reading.requests(MINE, RequestFilter(**given), page_size=0, page_token="")
        assert page.next_page_token == ""
        return [request.id for request, _ in page.items]

    assert await found() == [REQUESTS[n] for n in (5, 4, 3, 2, 1)]
    assert await found(account=ACCOUNT, status=RequestStatus.COMPLETED) == [REQUESTS[2], REQUESTS[1]]
    assert await found(position_id=3) == [WORKING]
    assert await found(position_id=3, status=RequestStatus.FAILED) == []
    assert await found(position_id=2**63) == []
    assert await found(account="other") == []
    assert await found(created_after=datetime.now(UTC) + timedelta(days=1)) == []


async def test_positions_are_filtered(reading: Reading) -> None:
    async def found(**given: Any) -> list[int]:
        page = await reading.positions(MINE, PositionFilter(**given), page_size=500, page_token="")
        return [position.id for position in page.items]

    assert len(await found()) == 66
    assert await found(status=PositionStatus.CLOSED) == [1, 2]
    assert await found(symbol="NVDA") == [3]
    assert await found(symbol="NVDA", status=PositionStatus.OPEN) == []
    assert await found(account="other") == []


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (49, 49), (500, 66), (10**9, 66)])
async def test_a_page_has_the_size_that_was_asked_for_within_limits(reading: Reading, asked: int, given: int) -> None:
    page = await reading.positions(MINE, PositionFilter(), page_size=asked, page_token="")
    assert (len(page.items), page.next_page_token == "") == (given, given == 66)


async def test_a_page_below_zero_is_refused(reading: Reading) -> None:
    with pytest.raises(Problem) as refused:
        await reading.requests(MINE, RequestFilter(), page_size=-1, page_token="")
    assert fields(refused.value) == {"page_size"}


async def test_a_token_is_for_its_list_and_filters_alone(reading: Reading) -> None:
    first = await reading.positions(MINE, PositionFilter(status=PositionStatus.OPEN), page_size=2, page_token="")
    token = first.next_page_token
    again = await reading.positions(MINE, PositionFilter(status=PositionStatus.OPEN), page_size=7, page_token=token)
    assert [position.id for position in first.items + again.items] == sorted(
        position.id for position in first.items + again.items
    )
    wrong = [token[:-1], token + "A", token[::-1], "!" * 20, "é" * 20, "A" * 5000, "AAAA", token[:-1] + "="]
    for other in wrong:
        with pytest.raises(Problem) as refused:
            await reading.positions(MINE, PositionFilter(status=PositionStatus.OPEN), page_size=2, page_token=other)
        assert fields(refused.value) == {"page_token"}, other
    for filter in (
        PositionFilter(),
        PositionFilter(status=PositionStatus.OPEN, symbol="S1"),
        PositionFilter(symbol="S"),
    ):
        with pytest.raises(Problem) as refused:
            await reading.positions(MINE, filter, page_size=2, page_token=token)
        assert fields(refused.value) == {"page_token"}
    with pytest.raises(Problem) as refused:
        await reading.requests(MINE, RequestFilter(), page_size=2, page_token=token)
    assert fields(refused.value) == {"page_token"}


async def test_a_token_of_mine_shows_a_stranger_nothing(reading: Reading) -> None:
    token = (await reading.requests(MINE, RequestFilter(), page_size=1, page_token="")).next_page_token
    assert token
    theirs = await reading.requests(STRANGER, RequestFilter(), page_size=1, page_token=token)
    assert (theirs.items, theirs.next_page_token) == ([], "")


@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", "x" * 501])
async def test_what_can_be_no_name_is_refused(reading: Reading, name: str) -> None:
    with pytest.raises(Problem) as refused:
        await reading.requests(MINE, RequestFilter(account=name), page_size=0, page_token="")
    assert fields(refused.value) == {"account"}
    with pytest.raises(Problem) as refused:
        await reading.positions(MINE, PositionFilter(account=name, symbol=name), page_size=0, page_token="")
    assert fields(refused.value) == {"account", "symbol"}


async def test_pages_neither_skip_nor_repeat_while_rows_are_added(database: Database, watching: Reading) -> None:
    run(database, "INSERT INTO accounts (account_id, broker) VALUES ('main', 'sim'), ('other', 'sim')")
    began = datetime.now(UTC)

    def add(count: int, since: datetime) -> list[UUID]:
        made = []
        for n in range(count):
            (position,) = run(
                database,
                "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity)"
                " VALUES ('main', 'S' || gen_random_uuid(), 'stock', 5, 5) RETURNING id",
            )
            request = new_close_request_id(since + timedelta(milliseconds=n), bytes(10))
            run(
                database,
                "INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by,"
                " symbol, side, asset_type, target_qty, time_in_force)"
                " VALUES (%s, %s, 'main', 'k', 'f', 'me', 'S', 'sell', 'stock', 5, 'day')",
                request,
                position[0],
            )
            made.append(request)
        return made

    old = add(10, began)
    first = await watching.requests(MINE, RequestFilter(), page_size=4, page_token="")
    positions = await watching.positions(MINE, PositionFilter(), page_size=4, page_token="")
    add(5, began + timedelta(minutes=1))
    seen, token = list(first.items), first.next_page_token
    while token:
        page = await watching.requests(MINE, RequestFilter(), page_size=4, page_token=token)
        seen, token = seen + page.items, page.next_page_token
    assert [request.id for request, _ in seen] == old[::-1]
    ids, token = [one.id for one in positions.items], positions.next_page_token
    while token:
        more = await watching.positions(MINE, PositionFilter(), page_size=4, page_token=token)
        ids, token = ids + [one.id for one in more.items], more.next_page_token
    assert ids == [row[0] for row in run(database, "SELECT id FROM positions ORDER BY id")]


async def test_a_timeline_has_every_fact_in_the_order_of_time(reading: Reading) -> None:
    timeline = await reading.timeline(MINE, WORKING)
    assert timeline.state[0].id == WORKING
    assert [one.at for one in timeline.facts] == sorted(one.at for one in timeline.facts)
    told = {one.source: one.what for one in timeline.facts}
    assert told.keys() == {"status_history", "outbox_events", "order_sends", "order_statements", "executions"}
    assert told["executions"] == "trade 2 @ 100.25"
    events = [one.detail["seen_in_kafka"] for one in timeline.facts if one.source == "outbox_events"]
    assert set(events) == {False}


async def test_a_final_state_is_not_waited_for(reading: Reading) -> None:
    began = time.monotonic()
    for request, status in ((COMPLETED, RequestStatus.COMPLETED), (FAILED, RequestStatus.FAILED)):
        assert (await reading.wait(MINE, request, wait_s=30))[0].status is status
    assert time.monotonic() - began < 5


async def test_a_wait_ends_with_the_next_change_or_in_time(moving: Closes, watching: Reading) -> None:
    assert (await watching.wait(MINE, PENDING, wait_s=0.2))[0].status is RequestStatus.PENDING
    waiting = asyncio.create_task(watching.wait(MINE, WORKING, wait_s=30))
    await watched(1)
    await moving.fill(3, "1", cum="3")
    request, position = await asyncio.wait_for(waiting, 10)
    assert (request.filled_quantity, position.quantity) == (Decimal(3), Decimal(-2))


async def watched(count: int) -> None:
    """Until so many watch."""
    await until(lambda: REGISTRY.get_sample_value("close_api_watchers") == count, f"{count} watch")


@contextmanager
def all_locked(database: Database) -> Iterator[None]:
    """Nobody reads a close request meanwhile."""
    with psycopg.connect(database.admin_dsn) as owner:
        owner.execute("LOCK TABLE close_requests")
        yield


async def test_a_watch_shows_what_changes_to_the_end_and_resumes_in_any_process(
    database: Database, moving: Closes, watching: Reading
) -> None:
    async with pool(database) as engine:
        elsewhere = Reading(engine, 5.0, keep_alive_s=0.3)
        watch = watching.watch(MINE, WORKING, last_event_id=None)
        first = await anext(watch)
        assert isinstance(first, Changed)
        assert first.state[0].filled_quantity == 2
        resumed = elsewhere.watch(MINE, WORKING, last_event_id=first.event_id)
        assert await anext(resumed) is None, "what is known is not sent again"
        await moving.fill(3, "3", cum="5")
        lasts = [[one async for one in each if one is not None] for each in (watch, resumed)]
        for seen in lasts:
            assert seen[-1].state[0].status is RequestStatus.COMPLETED
            assert seen[-1].state[1].status is PositionStatus.CLOSED
        final = lasts[0][-1].event_id
        assert final == lasts[1][-1].event_id
        assert [one async for one in elsewhere.watch(MINE, WORKING, last_event_id=final)] == []
        again = [one async for one in elsewhere.watch(MINE, WORKING, last_event_id=first.event_id)]
        assert [one.event_id for one in again if one is not None] == [final]


async def test_no_more_may_watch_than_there_is_room_for(moving: Closes, watching: Reading) -> None:
    watches = [watching.watch(MINE, WORKING, last_event_id=None) for _ in range(5)]
    for one in watches:
        assert isinstance(await anext(one), Changed)
    with pytest.raises(Problem, match="overloaded"):
        watching.watch(MINE, PENDING, last_event_id=None)
    with pytest.raises(Problem, match="overloaded"):
        await watching.wait(MINE, PENDING, wait_s=5)
    assert await watching.request(MINE, PENDING)
    await watches[0].aclose()
    assert (await watching.wait(MINE, PENDING, wait_s=0.1))[0].id == PENDING
    gone = asyncio.ensure_future(anext(watches[1]))
    await asyncio.sleep(0)
    gone.cancel()
    for one in watches[2:]:
        await one.aclose()
    await watched(0)


async def test_nothing_is_left_of_those_who_watched(moving: Closes, watching: Reading) -> None:
    before = asyncio.all_tasks()
    await asyncio.gather(*(watching.wait(MINE, WORKING, wait_s=0.3) for _ in range(5)))
    await watched(0)
    await until(lambda: not asyncio.all_tasks() - before, "the poller has ended")


async def test_a_database_that_is_away_is_told() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")
    reading = Reading(engine, 5.0)
    with pytest.raises(Problem, match="unavailable"):
        await reading.request(MINE, WORKING)
    with pytest.raises(Problem, match="unavailable"):
        await reading.positions(MINE, PositionFilter(), page_size=0, page_token="")


async def test_a_question_is_given_up_at_its_deadline(database: Database) -> None:
    async with pool(database) as engine:
        reading = Reading(engine, 0.3)
        with all_locked(database):
            began = time.monotonic()
            with pytest.raises(Problem, match="unavailable"):
                await reading.request(MINE, WORKING)
            assert time.monotonic() - began < 5
