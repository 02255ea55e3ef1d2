"""When a reader that takes nothing is given up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from records import at, position

from close_board.follow import STALLED_AFTER_S, FaustStalled, Follower
from closeflow.clock import HostClock, driven_by
from closeflow.kafka.connection import KafkaConnection


class SetClock(HostClock):
    """Shows the time that it is set to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[SetClock]:
    made = SetClock()
    with driven_by(made):
        yield made


def test_a_reader_is_given_up_once_records_wait_and_none_is_read_for_long(clock: SetClock) -> None:
    follower = Follower(KafkaConnection("127.0.0.1:1"))
    follower.progress.looked({("position-events", 0): 2}, at(0))
    moved = follower.moved(0, clock.now)
    clock.now = STALLED_AFTER_S
    follower.model.apply(position(1))
    moved = follower.moved(*moved)
    assert moved == (1, STALLED_AFTER_S)
    clock.now = 2 * STALLED_AFTER_S
    assert follower.moved(*moved) == moved
    clock.now += 1
    with pytest.raises(FaustStalled, match="2 records wait, and none was read for 61 s"):
        follower.moved(*moved)


def test_a_reader_at_the_end_of_the_log_is_never_given_up(clock: SetClock) -> None:
    follower = Follower(KafkaConnection("127.0.0.1:1"))
    clock.now = 10 * STALLED_AFTER_S
    assert follower.moved(0, 0.0) == (0, clock.now)
