"""The events of the outbox as their rows carry them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from closeflow.domain.model import Event, Payload
from closeflow.domain.text import decimal_text, time_text


def event_value(event: Event) -> dict[str, object]:
    """The value of its record as JSON has it: decimals and ids as text, times RFC 3339 in UTC, absent fields left out.

    It is not validated, so that no event can stop the transaction that makes it true.
    """
    names, values_of = _fields(type(event.payload))  # type: ignore[arg-type]  # a class is Hashable
    found: dict[str, object] = {}
    for name, value in zip(names, values_of(event.payload), strict=True):
        if value is not None:
            as_text = _AS_TEXT.get(type(value))
            found[name] = value if as_text is None else as_text(value)
    return found


@cache
def _fields(payload: type[Payload]) -> tuple[tuple[str, ...], Callable[[Payload], tuple[Any, ...]]]:
    names = tuple(one.name for one in fields(payload))
    return names, attrgetter(*names)


_AS_TEXT: Final[Mapping[type, Callable[[Any], str]]] = {Decimal: decimal_text, datetime: time_text, UUID: str}
