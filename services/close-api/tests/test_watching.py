"""The one poller behind everybody who waits for a close request to change."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from close_api.errors import Problem
from close_api.use_cases.watching import Watch, Watchers, event_id
from closeflow.domain.model import (
    AssetType,
    CloseRequest,
    OrderType,
    Position,
    PositionStatus,
    RequestStatus,
    Side,
    TimeInForce,
)
from closeflow.storage.close_requests import RequestState

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
POSITION: Final = Position(
    id=7,
    account_id="ACC",
    symbol="AAPL",
    asset_type=AssetType.STOCK,
    multiplier=Decimal(1),
    currency="USD",
    opening_quantity=Decimal(10),
    quantity=Decimal(10),
    status=PositionStatus.CLOSING,
    version=2,
)


def state(n: int = 1, **changes: Any) -> RequestState:
    request = CloseRequest(
        id=UUID(int=n),
        position_id=7,
        account_id="ACC",
        idempotency_key="k",
        fingerprint="f",
        requested_by="me",
        status=RequestStatus.SUBMITTED,
        symbol="AAPL",
        side=Side.SELL,
        asset_type=AssetType.STOCK,
        target_quantity=Decimal(10),
        filled_quantity=Decimal(0),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        working_timeout_s=60,
        max_retries=3,
        created_at=NOW,
    )
    return replace(request, **changes), POSITION


DONE: Final = state(status=RequestStatus.COMPLETED, filled_quantity=Decimal(10), completed_at=NOW)


@dataclass
class Asked:
    """A database: what it holds, and what it was asked."""

    states: dict[UUID, RequestState] = field(default_factory=dict)
    asked: list[list[UUID]] = field(default_factory=list)
    failing: bool = False
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request_ids: Collection[UUID]) -> Mapping[UUID, RequestState]:
        self.asked.append(sorted(request_ids))
        self.was_asked.set()
        if self.failing:
            raise Problem("unavailable")  # type: ignore[arg-type]
        return {one: self.states[one] for one in request_ids if one in self.states}

    def hold(self, *states: RequestState) -> None:
        self.states |= {one[0].id: one for one in states}


def watchers(database: Asked, at_most: int = 100) -> Watchers:
    return Watchers(database, at_most=at_most, every_s=0.01, at_least_every_s=0.05)


@pytest.mark.parametrize(
    "changed",
    [
        state(filled_quantity=Decimal(1)),
        state(status=RequestStatus.RETRYABLE),
        state(retry_count=1),
        state(reason="canceled"),
        state(submitted_at=NOW),
        state(completed_at=NOW),
        state(2),
        (state()[0], replace(POSITION, status=PositionStatus.OPEN)),
    ],
)
def test_an_event_id_names_what_is_shown(changed: RequestState) -> None:
    assert event_id(changed) != event_id(state())
    assert event_id(changed).isalnum()


@pytest.mark.parametrize(
    "same",
    [
        state(filled_quantity=Decimal("0.00"), target_quantity=Decimal("10.0")),
        state(attempt=2, next_attempt_at=NOW, traceparent="t"),
        (state()[0], replace(POSITION, version=3)),
    ],
)
def test_what_is_not_shown_makes_no_other_event(same: RequestState) -> None:
    assert event_id(same) == event_id(state())


async def test_all_who_wait_are_served_by_one_question_at_a_time() -> None:
    database = Asked()
    database.hold(*(state(n) for n in range(1, 31)))
    waiting = watchers(database)

    async def wait(n: int) -> RequestState | None:
        with waiting.watching(UUID(int=n % 30 + 1), subject="desk", seen=event_id(state(n % 30 + 1))) as watch:
            return await watch.changed(within_s=10)

    calls = [asyncio.create_task(wait(n)) for n in range(90)]
    await asyncio.wait_for(database.was_asked.wait(), 10)
    assert database.asked[-1] == [UUID(int=n) for n in range(1, 31)]
    database.hold(*(state(n, filled_quantity=Decimal(n)) for n in range(1, 31)))
    found = await asyncio.gather(*calls)
    assert [one and one[0].filled_quantity for one in found] == [Decimal(n % 30 + 1) for n in range(90)]
    polls = len(database.asked)
    await asyncio.sleep(0.1)
    assert len(database.asked) == polls, "nobody waits, so nothing is asked"


async def test_what_does_not_change_is_asked_less_often() -> None:
    database = Asked()
    database.hold(state())
    waiting = watchers(database)
    with waiting.watching(UUID(int=1), subject="desk", seen=event_id(state())) as watch:
        assert await watch.changed(within_s=1) is None
        assert len(database.asked) < 50, "every 10 ms it would be a hundred"
        assert len(database.asked) > 10
        database.hold(DONE)
        assert await watch.changed(within_s=10) == DONE


async def test_who_comes_and_goes_holds_up_nobody() -> None:
    database = Asked()
    database.hold(state(1), state(2))
    waiting = watchers(database)
    with waiting.watching(UUID(int=1), subject="desk", seen=event_id(state(1))) as watch:
        first = asyncio.create_task(watch.changed(within_s=10))
        for _ in range(50):
            with waiting.watching(UUID(int=2), subject="desk", seen=event_id(state(2))):
                await asyncio.sleep(0.004)
        assert len(database.asked) > 5
        database.hold(DONE)
        assert await first == DONE


@pytest.mark.parametrize(("at_most", "each"), [(1, 1), (9, 9), (10, 9), (99, 90)])
async def test_one_subject_leaves_a_tenth_of_the_places_to_others(at_most: int, each: int) -> None:
    waiting = watchers(Asked(), at_most=at_most)
    with ExitStack() as waits:
        for _ in range(each):
            waits.enter_context(waiting.watching(UUID(int=1), subject="greedy", seen=""))
        with pytest.raises(Problem, match="overloaded"):
            waiting.refuse_if_full("greedy")
        for n in range(at_most - each):
            waits.enter_context(waiting.watching(UUID(int=1), subject=f"desk-{n}", seen=""))
        with pytest.raises(Problem, match="overloaded"):
            waiting.refuse_if_full("another")
    waiting.refuse_if_full("greedy")


async def test_a_database_that_fails_is_asked_again() -> None:
    database = Asked(failing=True)
    waiting = watchers(database)
    with waiting.watching(UUID(int=1), subject="desk", seen="") as watch:
        assert await watch.changed(within_s=0.5) is None
        assert 1 < len(database.asked) < 20
        database.hold(state())
        database.failing = False
        assert await watch.changed(within_s=10) == state()


async def test_a_request_that_is_gone_is_not_found() -> None:
    with (
        watchers(Asked()).watching(UUID(int=1), subject="desk", seen="") as watch,
        pytest.raises(Problem, match="not_found"),
    ):
        await watch.changed(within_s=10)


async def test_states_between_may_be_skipped_and_the_end_is_not() -> None:
    watch = Watch(seen=event_id(state()))
    assert not watch.tell(state())
    assert watch.tell(state(retry_count=1))
    assert watch.tell(state(retry_count=2))
    assert not watch.tell(state(retry_count=2))
    assert await watch.changed(within_s=0) == state(retry_count=2)
    assert watch.tell(state(retry_count=3))
    assert watch.tell(DONE)
    assert not watch.tell(state(retry_count=4)), "it lives again (C11); the end is told all the same"
    assert await watch.changed(within_s=0) == DONE
    assert await watch.changed(within_s=0) is None


async def test_what_went_back_before_anybody_looked_is_no_change() -> None:
    watch = Watch(seen=event_id(state()))
    assert watch.tell(state(reason="x"))
    assert not watch.tell(state())
    assert await watch.changed(within_s=0) is None


async def test_who_comes_while_it_is_asked_is_told_nothing_older_than_he_has_seen() -> None:
    newer = state(filled_quantity=Decimal(4))
    asked: asyncio.Queue[asyncio.Future[RequestState]] = asyncio.Queue()

    async def read(_: Collection[UUID]) -> Mapping[UUID, RequestState]:
        answer: asyncio.Future[RequestState] = asyncio.get_running_loop().create_future()
        asked.put_nowait(answer)
        return {UUID(int=1): await answer}

    waiting = Watchers(read, at_most=10, every_s=0.01, at_least_every_s=0.01)
    with waiting.watching(UUID(int=1), subject="desk", seen=event_id(state())) as first:
        before = await asyncio.wait_for(asked.get(), 10)
        with waiting.watching(UUID(int=1), subject="desk", seen=event_id(newer)) as later:
            before.set_result(state())
            after = await asyncio.wait_for(asked.get(), 10)
            assert await later.changed(within_s=0.01) is None
            after.set_result(newer)
            assert await first.changed(within_s=10) == newer
            assert await later.changed(within_s=0.01) is None
