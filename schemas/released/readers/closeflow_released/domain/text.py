"""Decimals and times as text, the same wherever they are written."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

EXACT: Final = Context(prec=128)
"""Three factors of 33 digits have at most 99; the default context would round to 28."""


def decimal_text(value: Decimal) -> str:
    """A decimal as it goes on the wire: no exponent, no trailing zeros after the point.

    Equal numbers are equal bytes, whatever scale their columns keep.
    """
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def time_text(value: datetime) -> str:
    """RFC 3339 in UTC with a Z; as many digits of the second as the time has."""
    return _time_text(value, value.fold)


# All that is decided in one transaction has one time. `fold` tells apart two that are equal to Python: of an hour that
# comes twice.
@lru_cache(maxsize=1024)
def _time_text(value: datetime, fold: int) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
