"""Compare what we hold with what the broker says we hold. A difference counts when it was there twice in a row."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal

from closeflow.domain.lots import LOTS
from closeflow.domain.model import ZERO

Pair = tuple[Decimal, Decimal]
"""Ours and the broker's."""


@dataclass(frozen=True, slots=True)
class Compared:
    """`differing` and `unknown` are what the next comparison is measured against; the rest is what this one shows."""

    differing: Mapping[str, Pair] = field(default_factory=dict)
    unknown: Mapping[str, Decimal] = field(default_factory=dict)
    confirmed: Mapping[str, Pair] = field(default_factory=dict)
    """Differences that the comparison before found too, unchanged."""
    unknown_symbols: Mapping[str, Decimal] = field(default_factory=dict)
    """Holdings of the broker's in symbols that we never had a position in, also found before."""
    equal: Set[str] = frozenset()


def agree(ours: Decimal, theirs: Decimal) -> bool:
    """A broker that tells fewer digits than it fills with differs by less than can be traded of anything."""
    return abs(ours - theirs) < min(LOTS.values())


def compare(ours: Mapping[str, Decimal], theirs: Mapping[str, Decimal], *, known: Set[str], last: Compared) -> Compared:
    """Compare the quiet symbols, which `ours` are; `known` are all that we ever had. What the broker does not list it
    does not hold. `last` is the comparison before this one."""
    pairs = {symbol: (quantity, theirs.get(symbol, ZERO)) for symbol, quantity in ours.items()}
    differing = {symbol: pair for symbol, pair in pairs.items() if not agree(*pair)}
    unknown = {symbol: held for symbol, held in theirs.items() if symbol not in known and held != ZERO}
    return Compared(
        differing=differing,
        unknown=unknown,
        confirmed={symbol: pair for symbol, pair in differing.items() if last.differing.get(symbol) == pair},
        unknown_symbols={symbol: held for symbol, held in unknown.items() if last.unknown.get(symbol) == held},
        equal=frozenset(pairs.keys() - differing.keys()),
    )
