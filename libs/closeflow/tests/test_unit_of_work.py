"""Who is held up by an item that breaks its transaction, and who is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from closeflow.storage.core.engine import StatementError
from closeflow.unit_of_work import MoveRefused, apart_where_one_breaks, first_line


class Said(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"SQLSTATE {sqlstate}\nDETAIL: more")
        self.sqlstate = sqlstate


POISON, LOCKED, AWAY = "22003", "55P03", "08006"


class Work:
    """Breaks for some items, and writes down what it did."""

    def __init__(self, **broken: str) -> None:
        self.broken = broken
        self.done: list[str] = []
        self.alone: list[str] = []

    async def __call__(self, items: Sequence[str]) -> int:
        for item in items:
            if item in self.broken:
                raise StatementError("UPDATE", {}, Said(self.broken[item]))
        self.done += items
        return len(items)

    async def left(self, item: str, error: StatementError | MoveRefused) -> int:
        assert first_line(error) == f"SQLSTATE {self.broken[item]}"
        self.alone.append(item)
        return 0


async def test_without_an_error_all_are_done_in_one() -> None:
    work = Work()
    assert (await apart_where_one_breaks("abc", work, alone=work.left), work.done) == ([3], ["a", "b", "c"])


async def test_the_one_that_breaks_is_alone_and_the_others_go_on() -> None:
    work = Work(b=POISON)
    assert await apart_where_one_breaks("abc", work, alone=work.left) == [1, 0, 1]
    assert (work.done, work.alone) == (["a", "c"], ["b"])


@pytest.mark.parametrize("also_locked", [True, False])
async def test_what_is_nobodys_fault_is_raised_at_once(also_locked: bool) -> None:
    work = Work(b=AWAY)
    with pytest.raises(StatementError):
        await apart_where_one_breaks("abc", work, alone=work.left, also_locked=also_locked)
    assert (work.done, work.alone) == ([], [])


async def test_a_lock_is_raised_after_the_others_had_their_turn_where_that_is_asked_for() -> None:
    work = Work(b=LOCKED, c=POISON)
    with pytest.raises(StatementError, match=LOCKED):
        await apart_where_one_breaks("abcd", work, alone=work.left, also_locked=True)
    assert (work.done, work.alone) == (["a", "d"], ["c"])
    with pytest.raises(StatementError, match=LOCKED):
        await apart_where_one_breaks("ab", Work(b=LOCKED), alone=work.left)
