"""How an option is written: root, yymmdd, C or P, strike × 1000 (Options Symbology Initiative of the OCC)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_OSI: Final = re.compile(r"([A-Z0-9]{1,6}?)( *)([0-9]{6})([CP])([0-9]{8})")


@dataclass(frozen=True, slots=True)
class OptionSymbol:
    """Its parts as they are written; `day` is yymmdd and need not be a day that there is."""

    root: str
    day: str
    right: str
    strike: str


def read_option(symbol: str, *, padded: bool = False) -> OptionSymbol | None:
    """None for what is no option's symbol. Files of the OCC pad the root to six with spaces; brokers do not."""
    found = _OSI.fullmatch(symbol)
    if found is None or (found[2] and not padded):
        return None
    return OptionSymbol(found[1], found[3], found[4], found[5])
