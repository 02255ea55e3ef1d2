"""Whose items come next: who asks for much holds up nobody who asks for little, and comes through all the same."""

from __future__ import annotations

from uuid import uuid4

import pytest

from close_api.accept import turn_of
from close_api.turns import GIVES_WAY_S, SHARED_S, Turns
from closeflow.domain.close.accept import CloseCommand

SIZE = 8


def turns(*, capacity: int = 1000, in_flight: int = 3) -> Turns[int]:
    return Turns(capacity, SIZE, in_flight, key=lambda item: item % 1000)


def ask(made: Turns[int], whose: str, *items: int, now: float = 0.0) -> None:
    for item in items:
        assert made.add(whose, item, now=now) is None


def taken(made: Turns[int], *, now: float = 0.0) -> list[int] | None:
    batch = made.take(now=now)
    return None if batch is None else batch.items


def test_who_is_alone_gets_whole_batches_in_order_and_leaves_the_last_one_to_others() -> None:
    made = turns(in_flight=3)
    ask(made, "desk", *range(20))
    assert taken(made) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert taken(made) == [8, 9, 10, 11, 12, 13, 14, 15]
    assert taken(made) is None
    assert made.again_at is None
    ask(made, "other", 100)
    assert taken(made) == [100]


def test_a_stranger_waits_for_no_close_of_a_position_that_is_anothers() -> None:
    """Waiting would tell that it is there."""
    made: Turns[CloseCommand] = Turns(1000, SIZE, 3, key=turn_of)
    owners, strangers, owners_next = (
        CloseCommand(
            request_id=uuid4(),
            position_id=7,
            idempotency_key=key,
            requested_by="somebody",
            accounts=frozenset({account}),
        )
        for key, account in (("a", "mine"), ("b", "elsewhere"), ("c", "mine"))
    )
    made.add("owner", owners, now=0.0)
    assert made.take(now=0.0) is not None
    made.add("stranger", strangers, now=0.0)
    made.add("owner's other", owners_next, now=0.0)
    batch = made.take(now=1.0)
    assert batch is not None
    assert batch.items == [strangers]


def test_what_does_not_fill_another_batch_waits_for_the_running_one() -> None:
    made = turns()
    ask(made, "desk", *range(12))
    first = made.take(now=0.0)
    assert first is not None
    assert taken(made) is None
    made.ended(first)
    assert taken(made) == [8, 9, 10, 11]


def test_a_shared_batch_has_one_of_each_in_turn_and_no_more_than_a_share_of_anybody() -> None:
    made = turns()
    ask(made, "flood", *range(100))
    ask(made, "other flood", *range(200, 300))
    assert taken(made) == [0, 200, 1, 201, 2, 202, 3, 203]
    assert taken(made) is None, "both are in a running one"


def test_who_asks_for_little_has_a_batch_of_its_own_which_is_the_first() -> None:
    made = turns()
    ask(made, "flood", *range(100))
    ask(made, "desk", 500, 501)
    assert taken(made) == [500, 501]
    assert taken(made) is None
    assert made.again_at == pytest.approx(GIVES_WAY_S)


def test_who_asks_for_much_goes_on_when_the_others_batch_has_ended() -> None:
    made = turns()
    ask(made, "flood", *range(100))
    ask(made, "desk", 500)
    batch = made.take(now=0.0)
    assert batch is not None
    assert (set(batch.whose), batch.is_light) == ({"desk"}, True)
    assert taken(made) is None
    made.ended(batch)
    assert taken(made) == [0, 1, 2, 3]


def test_who_asks_for_much_waits_no_longer_than_a_moment() -> None:
    made = turns()
    ask(made, "flood", *range(100))
    ask(made, "desk", 500)
    assert taken(made) == [500]
    assert taken(made, now=GIVES_WAY_S / 2) is None
    assert taken(made, now=GIVES_WAY_S) == [0, 1, 2, 3]


def test_who_asks_for_much_comes_through_among_many_who_ask_for_little() -> None:
    made = turns(in_flight=1)
    ask(made, "flood", *range(100))
    rounds = 0
    now = 0.0
    while True:
        ask(made, f"desk {rounds}", 500 + rounds, now=now)
        batch = made.take(now=now)
        assert batch is not None
        if "flood" in batch.whose:
            break
        made.ended(batch)
        rounds, now = rounds + 1, now + 0.01
    assert now <= 2 * GIVES_WAY_S + 0.01


def test_whoever_has_not_asked_for_a_while_shares_no_more() -> None:
    made = turns()
    ask(made, "desk", 500)
    ask(made, "flood", *range(100))
    assert taken(made) == [500]
    assert taken(made, now=SHARED_S) == [0, 1, 2, 3]
    assert taken(made, now=SHARED_S) is None, "while it is shared, one batch at a time"
    assert taken(made, now=SHARED_S + 0.1) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_items_of_one_key_come_in_their_order_and_never_in_two_running_batches() -> None:
    made = turns()
    ask(made, "desk", *range(8))
    first = made.take(now=0.0)
    assert first is not None
    ask(made, "desk", 1003, *range(8, 16))
    ask(made, "stranger", 2003)
    assert taken(made) is None
    made.ended(first)
    assert taken(made) == [2003]
    assert taken(made, now=1.0) is None


def test_where_there_is_no_room_the_newest_of_the_longest_queue_gives_way() -> None:
    made = turns(capacity=4)
    ask(made, "flood", 1, 2, 3, 4)
    assert made.add("flood", 5, now=0.0) == 5
    assert made.add("desk", 50, now=0.0) == 4
    assert made.add("desk", 51, now=0.0) == 3
    assert made.add("desk", 52, now=0.0) == 52, "now they are even"
    assert made.waiting == 4


def test_nothing_waits_and_nothing_runs_at_the_end() -> None:
    made = turns()
    assert made.is_idle
    ask(made, "desk", 1)
    assert not made.is_idle
    batch = made.take(now=0.0)
    assert batch is not None
    assert not made.is_idle
    made.ended(batch)
    assert made.is_idle
