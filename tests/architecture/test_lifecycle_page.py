"""The page of the rules says what the code does."""

from __future__ import annotations

from closeflow.domain import rulebook
from closeflow.domain.transitions import ORDER_MOVES, POSITION_MOVES, REQUEST_MOVES

from .lifecycle_page import PAGE, page

STATUS_STAYS = {"P12", "P13", "C1", "C3", "C6a", "O1", "O1a", "O16", "O17"}
"""Moves that start a life, share the statuses of another move, or change something else."""


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m tests.architecture.lifecycle_page"


def test_every_label_of_the_tables_is_explained_and_every_explained_one_is_there() -> None:
    labels = {*POSITION_MOVES.values(), *REQUEST_MOVES.values(), *ORDER_MOVES.values()}
    explained = {*rulebook.POSITION, *rulebook.REQUEST, *rulebook.ORDER}
    assert explained - labels == STATUS_STAYS
    assert labels <= explained
