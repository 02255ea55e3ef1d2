"""Alpaca's non-trade activities → what the domain understands. Pure; nothing of them is a reason to read no other."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Final

from closeflow.broker.alpaca import parse
from closeflow.domain.operator.adjust import Ending
from closeflow.domain.operator.non_trade_activity import NonTrade

ENDINGS: Final = {
    "OPASN": Ending.ASSIGNED,
    "OPEXC": Ending.EXERCISED,
    "OPEXP": Ending.EXPIRED,
    "OPXRC": Ending.EXERCISED,
    # Splits, mergers, spin-offs, and changes of the name or symbol.
    **dict.fromkeys(("MA", "NC", "REORG", "SC", "SPIN", "SPLIT", "SSO", "SSP"), Ending.REORGANIZED),
}
MONEY_ONLY: Final = ("CFEE", "CSD", "CSW", "DIV", "FEE", "INT", "JNLC", "PTC")
"""How the types of `NonTrade.money_only` begin."""


def non_trade(item: object) -> NonTrade:
    """Whatever can be read of it. One without an id is named by its content, so that it is told once."""
    of: parse.Json = item if isinstance(item, dict) else {}
    activity_id = _words(of, "id") or f"unreadable-{hashlib.sha256(repr(item).encode()).hexdigest()[:16]}"
    kind = _words(of, "activity_type") or ""
    return NonTrade(
        activity_id=activity_id,
        kind=kind,
        symbol=_words(of, "symbol"),
        quantity=parse.aside(of, "qty"),
        day=_day(_words(of, "date")) or _day(activity_id[:8]),
        status=_words(of, "status"),
        description=_words(of, "description"),
        ending=ENDINGS.get(kind),
        money_only=kind.startswith(MONEY_ONLY),
    )


def _words(of: parse.Json, name: str) -> str | None:
    value = of.get(name)
    return value.replace("\x00", "\u2400") if isinstance(value, str) and value else None


def _day(text: str | None) -> date | None:
    """Of a date or a time; an activity's id begins with its time, without separators."""
    try:
        return None if text is None else date.fromisoformat(text[:10])
    except ValueError:
        return None
