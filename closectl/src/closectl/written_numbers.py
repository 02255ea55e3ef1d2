"""Numbers as people and programs write them: read where they are plain, and else told with what may be meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final

LARGEST: Final = Decimal("1e15")
DIGITS: Final = 18
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,64}(\.[0-9]{0,64})?|\.[0-9]{1,64})")
_GROUPED: Final = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
_DECIMAL_COMMA: Final = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+")


def read_number(name: str, text: str) -> Decimal:
    """The number that is called `name`; raises ValueError with what is wrong, and what may be meant."""
    if not _NUMBER.fullmatch(text):
        what, meant = _written_otherwise(text)
        if _NUMBER.fullmatch(meant):
            raise ValueError(f"{name} {text!r} {what}; write {meant}")
        raise ValueError(f"{name} {text!r} is not a number written with digits and at most one point")
    value = Decimal(text)
    if abs(value) >= LARGEST:
        raise ValueError(f"{name} {text} must be below {LARGEST:f}")
    if -int(value.as_tuple().exponent) > DIGITS:
        raise ValueError(f"{name} {text} has more than {DIGITS} digits after the point")
    return value


def _written_otherwise(text: str) -> tuple[str, str]:
    """How people and programs write numbers too: what is odd about it, and what it would be here, if that is clear."""
    if text.startswith("(") and text.endswith(")"):
        return "is in brackets", "-" + text[1:-1].strip().replace(",", "")
    if text[:1] in "−–—":
        return "has a dash for a sign", "-" + text[1:]
    if text.endswith(("-", "+")):
        return "has its sign behind it", text[-1].replace("+", "") + text[:-1]
    if any(sign in text for sign in "$€£"):
        return "has a currency sign", re.sub("[$€£ ]", "", text)
    if _GROUPED.fullmatch(text):
        return "has commas between its digits", text.replace(",", "")
    if _DECIMAL_COMMA.fullmatch(text):
        return "has a decimal comma", text.replace(".", "").replace(",", ".")
    return "", ""


def comma_in(row: Sequence[str]) -> str:
    """Where a line has too many fields: the number that may have been cut in two."""
    for one, next_ in pairwise(row):
        whole = f"{one},{next_}"
        if _GROUPED.fullmatch(whole):
            return f"; is a comma in a number, as in {whole}? Write {whole.replace(',', '')}"
    return ""
