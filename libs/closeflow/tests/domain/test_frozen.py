"""The quick copy of a frozen dataclass is the standard library's, and what is derived of an object stays with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest

from closeflow.domain import model
from closeflow.domain.frozen import kept, replace

from .builders import an_order


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values, and what is derived of them."""

    left: int
    right: tuple[int, ...] = ()
    derived: dict[Any, Any] = field(init=False, compare=False, repr=False, default_factory=dict)


def test_a_copy_has_the_other_values_and_all_the_rest() -> None:
    order = an_order()
    for name in (one.name for one in dataclasses.fields(model.Order) if one.init):
        changed: dict[str, Any] = {name: object()}
        assert replace(order, **changed) == dataclasses.replace(order, **changed), name
    assert replace(order) == order


def test_the_original_is_left_as_it_was() -> None:
    pair = Pair(1, (2,))
    assert replace(pair, left=5) == Pair(5, (2,))
    assert pair == Pair(1, (2,))


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="has no field 'middle'"):
        replace(Pair(1), middle=2)  # type: ignore[call-arg]


def test_a_class_that_checks_what_it_is_made_of_is_refused() -> None:
    @dataclass(frozen=True)
    class Checked:
        left: int

        def __post_init__(self) -> None:
            assert self.left

    with pytest.raises(TypeError, match="__post_init__"):
        replace(Checked(1), left=0)


def test_what_is_derived_is_asked_for_once_and_not_carried_into_a_copy() -> None:
    asked: list[int] = []

    @kept
    def total(pair: Pair) -> int:
        asked.append(pair.left)
        return pair.left + sum(pair.right)

    pair = Pair(1, (2, 3))
    assert (total(pair), total(pair)) == (6, 6)
    assert total(replace(pair, left=10)) == 15
    assert asked == [1, 10]
    assert pair == Pair(1, (2, 3)), "what is kept makes no difference between equal objects"
