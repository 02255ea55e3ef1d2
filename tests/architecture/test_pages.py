"""The pages that are made from the sources say what these say."""

from __future__ import annotations

from pathlib import Path

import pytest

from closeflow.domain import rulebook
from closeflow.domain.transitions import ORDER_MOVES, POSITION_MOVES, REQUEST_MOVES
from closeflow.telemetry.metric_list import METRICS

from .metrics_page import SHARED, made, services
from .pages import PAGES
from .rules_page import cells, places

STATUS_STAYS = {"P12", "P13", "C1", "C3", "C6a", "O1", "O1a", "O16", "O17"}
"""Moves that start a life, share the statuses of another move, or change something else."""


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_the_page_is_current(file: Path) -> None:
    assert file.read_text() == PAGES[file](), "run: .venv/bin/python -m tests.architecture.pages"


def test_every_label_of_the_tables_is_explained_and_every_explained_one_is_there() -> None:
    labels = {*POSITION_MOVES.values(), *REQUEST_MOVES.values(), *ORDER_MOVES.values()}
    explained = {*rulebook.POSITION, *rulebook.REQUEST, *rulebook.ORDER}
    assert explained - labels == STATUS_STAYS
    assert labels <= explained


def test_every_rule_is_named_by_the_code_that_holds_it_and_by_a_test_that_proves_it() -> None:
    assert [label for label, of in places().items() if not all(cells(of))] == []


def test_every_declared_metric_is_made_once_and_no_other() -> None:
    assert [one.name for one in made()] == sorted(METRICS)
    assert {*SHARED} <= {*METRICS}
    assert [one.name for one in made() if not services(one)] == []
