"""As of when the board is whole."""

from __future__ import annotations

from records import at

from close_board.progress import Progress


def test_it_is_whole_as_of_a_look_once_all_that_was_there_is_read() -> None:
    progress = Progress()
    progress.began({("t", 0): 5, ("t", 1): 0})
    progress.looked({("t", 0): 7, ("t", 1): 1}, at(1))
    assert (progress.as_of, progress.waiting, progress.total) == (None, 3, 3)
    progress.read("t", 0, 5)
    progress.read("t", 1, 0)
    progress.looked({("t", 0): 9, ("t", 1): 1}, at(2))  # The first look is not reached: this one does not replace it.
    assert (progress.as_of, progress.waiting) == (None, 1)
    progress.read("t", 0, 6)
    progress.looked({("t", 0): 9, ("t", 1): 1}, at(3))
    assert (progress.as_of, progress.waiting) == (at(1), 2)
    progress.read("t", 0, 8)
    progress.catch_up()
    assert progress.as_of == at(3)


def test_topics_without_records_are_whole_at_once() -> None:
    progress = Progress()
    progress.began({("t", 0): 4})
    progress.looked({("t", 0): 4}, at(1))
    assert (progress.as_of, progress.total) == (at(1), 0)
