"""The broker's positions against ours: what counts is what differs twice in a row."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from closeflow.domain.position.compare_with_broker import Compared, compare

Held = Mapping[str, int]


def quantities(held: Held) -> dict[str, Decimal]:
    return {symbol: Decimal(quantity) for symbol, quantity in held.items()}


def run(*cycles: tuple[Held, Held], known: frozenset[str] = frozenset("ABC")) -> Compared:
    """Comparisons one after the other, each (our quiet symbols, the broker's positions)."""
    last = Compared()
    for ours, theirs in cycles:
        last = compare(quantities(ours), quantities(theirs), known=known, last=last)
    return last


@pytest.mark.parametrize(
    ("cycles", "confirmed", "equal"),
    [
        pytest.param([({"A": 5}, {"A": 5})], {}, {"A"}, id="the same is equal"),
        pytest.param([({"A": 0}, {})], {}, {"A"}, id="what the broker does not list it does not hold"),
        pytest.param([({"A": 5}, {"A": 4})], {}, set(), id="one difference does not count yet"),
        pytest.param([({"A": 5}, {"A": 4})] * 2, {"A": (5, 4)}, set(), id="the second one does"),
        pytest.param([({"A": 5}, {})] * 3, {"A": (5, 0)}, set(), id="and every one after it"),
        pytest.param([({"A": -5}, {"A": 5})] * 2, {"A": (-5, 5)}, set(), id="a sign differs"),
        pytest.param([({"A": 5}, {"A": 4}), ({"A": 5}, {"A": 3})], {}, set(), id="another difference begins anew"),
        pytest.param(
            [({"A": 5}, {"A": 4}), ({}, {"A": 4}), ({"A": 5}, {"A": 4})],
            {},
            set(),
            id="a symbol that was not quiet in between begins anew",
        ),
        pytest.param([({"A": 5}, {"A": 4}), ({"A": 5}, {"A": 5})], {}, {"A"}, id="it agrees again"),
        pytest.param([({}, {"A": 4})] * 2, {}, set(), id="what is not quiet is not compared"),
    ],
)
def test_what_counts(
    cycles: list[tuple[Held, Held]], confirmed: Mapping[str, tuple[int, int]], equal: set[str]
) -> None:
    found = run(*cycles)
    assert found.confirmed == {symbol: (Decimal(ours), Decimal(theirs)) for symbol, (ours, theirs) in confirmed.items()}
    assert found.equal == equal
    assert found.unknown_symbols == {}


@pytest.mark.parametrize(
    ("cycles", "unknown_symbols"),
    [
        pytest.param([({}, {"X": 7})], {}, id="seen once"),
        pytest.param([({}, {"X": 7})] * 2, {"X": 7}, id="seen twice"),
        pytest.param([({}, {"X": 0})] * 2, {}, id="nothing is held of it"),
        pytest.param([({}, {"X": 7}), ({}, {})], {}, id="gone again"),
    ],
)
def test_what_nobody_knows(cycles: list[tuple[Held, Held]], unknown_symbols: Held) -> None:
    assert run(*cycles).unknown_symbols == unknown_symbols
