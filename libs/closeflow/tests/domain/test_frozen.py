"""The quick copy of a frozen dataclass is the standard library's, and what is derived of an object stays with it."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from closeflow.domain import model
from closeflow.domain.frozen import kept, quick, replace

from .builders import an_order


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values, and what is derived of them."""

    left: int
    right: tuple[int, ...] = ()
    derived: dict[Any, Any] = field(init=False, compare=False, repr=False, default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class Base:
    """What is derived from."""

    first: int
    second: str = "two"


@quick
@dataclass(frozen=True, slots=True)
class Derived(Base):
    """All kinds of fields that there are."""

    made: list[int] = field(default_factory=list)
    kept: dict[str, int] = field(init=False, compare=False, default_factory=dict)
    named: int = field(kw_only=True)
    also_named: int = field(default=5, kw_only=True)


def test_a_quick_object_is_made_as_any_other() -> None:
    one = Derived(1, named=3)
    assert (one.first, one.second, one.made, one.kept, one.named, one.also_named) == (1, "two", [], {}, 3, 5)
    assert Derived(1, "b", [7], named=4, also_named=6) == Derived(first=1, second="b", made=[7], named=4, also_named=6)
    assert one.made is not Derived(1, named=3).made
    assert one.kept is not Derived(1, named=3).kept
    assert (type(one), hash(Base(1))) == (Derived, hash(Base(1, "two")))
    assert dataclasses.replace(one, second="c") == replace(one, second="c") == Derived(1, "c", named=3)
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "given", [{}, {"first": 1}, {"first": 1, "named": 2, "kept": {}}, {"named": 1, "first": 1, "x": 1}]
)
def test_a_quick_object_is_made_of_its_fields_alone(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="argument"):
        Derived(**given)


def test_a_quick_object_never_changes() -> None:
    for one in (Derived(1, named=3), replace(Derived(1, named=3), first=2)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.first = 2  # type: ignore[misc]
        with pytest.raises(dataclasses.FrozenInstanceError):
            del one.named


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
    with pytest.raises(TypeError, match="__post_init__"):
        quick(Checked)


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
