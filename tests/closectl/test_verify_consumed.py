"""What the consumers were given: with one thing wrong, it must be found by its invariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from closectl.verifying.consumed import Committed, check_offsets, check_updates
from closectl.verifying.reading import Given, TopicNames, Topics
from closectl.verifying.report import Looked
from closeflow.domain.model import Side
from closeflow.storage.verify.compared_state import KnownOrder, State
from tests.closectl.seeding import order_id

AT: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
NAMES: Final = TopicNames()
SUBMIT, FILL = "submit-order", "broker-fill"
IDS: Final = [UUID(int=number) for number in range(1, 8)]


def given(topic: str, offset: int, event_id: UUID | None, **value: Any) -> Given:
    return Given((topic, 0, offset), event_id, {"account_id": "main", **value})


def update(offset: int, event_id: UUID, **said: Any) -> Given:
    value = {
        "symbol": "AAPL",
        "side": "sell",
        "client_order_id": order_id(1),
        "broker_order_id": "b-1",
        "order_qty": "10",
        "cum_qty": "4",
        "broker_seq": 7,
    }
    return given(FILL, offset, event_id, **(value | said))


ORDER: Final = KnownOrder(
    client_order_id=order_id(1),
    account_id="main",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal(10),
    created_at=AT,
    status="partially_filled",
    broker_update_seq=7,
    stated=Decimal(4),
    settled=False,
    sent=True,
)
STATE: Final = State(
    at=AT,
    outbox=(),
    positions=(),
    executions=(),
    orders=(ORDER,),
    receipts={"order-submitter": {IDS[0]: "applied"}, "fill-processor": {IDS[2]: "applied", IDS[3]: "ignored"}},
    parked=frozenset({(FILL, 0, 3)}),
)
TOPICS: Final = Topics(
    published=[],
    given=[
        given(SUBMIT, 0, IDS[0]),
        given(SUBMIT, 1, IDS[0]),
        given(SUBMIT, 2, IDS[1], account_id="somebody-else"),
        given(SUBMIT, 3, IDS[5]),
        update(0, IDS[2]),
        update(1, IDS[3], broker_seq=6, cum_qty="3"),
        given(FILL, 2, None),
        update(3, IDS[4], client_order_id=order_id(2)),
    ],
    dead=frozenset({(FILL, 0, 2)}),
    ends={(SUBMIT, 0): 4, (FILL, 0): 4},
)
COMMITTED: Final[Committed] = {"order-submitter": {(SUBMIT, 0): 3}, "fill-processor": {(FILL, 0): 4}}
World = tuple[State, Topics, Committed]


def check(world: World) -> list[Looked]:
    state, topics, committed = world
    return [*check_updates(state, topics), *check_offsets(state, topics, committed, NAMES)]


def received(receipts: dict[UUID, str]) -> Callable[[World], World]:
    return lambda world: (replace(world[0], receipts={**world[0].receipts, "fill-processor": receipts}), *world[1:])


def said(**value: Any) -> Callable[[World], World]:
    """One more update, which was applied."""

    def made(world: World) -> World:
        state, topics, committed = world
        receipts = {**state.receipts, "fill-processor": {**state.receipts["fill-processor"], IDS[6]: "applied"}}
        more = update(4, IDS[6], **value)
        return replace(state, receipts=receipts), replace(topics, given=[*topics.given, more]), committed

    return made


PLANTS: Final[dict[str, tuple[int, str, Callable[[World], World]]]] = {
    "update without a receipt": (22, f"record {FILL}/0/1", received({IDS[2]: "applied"})),
    "order event without a receipt": (
        22,
        f"record {SUBMIT}/0/3",
        lambda world: (*world[:2], {**world[2], "order-submitter": {(SUBMIT, 0): 4}}),
    ),
    "dead letter that is not there": (
        22,
        f"record {FILL}/0/2",
        lambda world: (world[0], replace(world[1], dead=frozenset()), world[2]),
    ),
    "parked record that is not there": (
        22,
        f"record {FILL}/0/3",
        lambda world: (replace(world[0], parked=frozenset()), *world[1:]),
    ),
    "offset beyond the end": (
        22,
        f"partition {FILL}/0",
        lambda world: (*world[:2], {**world[2], "fill-processor": {(FILL, 0): 5}}),
    ),
    "order that the database lacks": (7, f"order {order_id(3)}", said(client_order_id=order_id(3))),
    "another quantity at the broker": (7, f"order {order_id(1)}", said(order_qty="11")),
    "another symbol at the broker": (7, f"order {order_id(1)}", said(symbol="MSFT")),
    "sequence that was forgotten": (9, f"order {order_id(1)}", said(broker_seq=8)),
    "stated quantity that was forgotten": (10, f"order {order_id(1)}", said(cum_qty="5")),
}


def test_what_was_consumed_and_kept_breaks_nothing() -> None:
    findings = check((STATE, TOPICS, COMMITTED))
    assert [(one.invariant, one.what, one.count, one.violations) for one in findings] == [
        (7, "broker updates", 2, ()),
        (9, "broker updates applied", 1, ()),
        (10, "broker updates applied", 1, ()),
        (22, f"records of {SUBMIT} below the offsets of order-submitter", 2, ()),
        (22, f"records of {SUBMIT} for other accounts", 1, ()),
        (22, f"records of {FILL} below the offsets of fill-processor", 4, ()),
    ]


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_violation_is_found(name: str) -> None:
    invariant, subject, planted = PLANTS[name]
    found = [one for part in check(planted((STATE, TOPICS, COMMITTED))) for one in part.violations]
    assert [(one.invariant, one.subject) for one in found] == [(invariant, subject)]


def test_what_is_not_committed_yet_is_not_judged() -> None:
    state = replace(STATE, receipts={}, parked=frozenset())
    findings = check((state, replace(TOPICS, dead=frozenset()), {}))
    assert [one.violations for one in findings] == [()] * len(findings)


@pytest.mark.parametrize(
    "explained",
    [said(order_qty=None, cum_qty=None, broker_seq=None), said(client_order_id="somebody-else")],
    ids=["says little", "foreign"],
)
def test_what_says_nothing_of_an_order_breaks_nothing(explained: Callable[[World], World]) -> None:
    assert [one for part in check(explained((STATE, TOPICS, COMMITTED))) for one in part.violations] == []
