"""The events of the outbox as their rows carry them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID

from closeflow.domain.model import Event, Payload
from closeflow.domain.text import decimal_text, time_text


def event_value(event: Event) -> dict[str, object]:
    """The value of its record as JSON has it: decimals and ids as text, times RFC 3339 in UTC, absent fields left out.

    It is not validated, so that no event can stop the transaction that makes it true.
    """
    payload = event.payload
    found = {name: getattr(payload, name) for name in _names(type(payload))}  # type: ignore[arg-type]  # a class is Hashable
    return {name: _json(value) for name, value in found.items() if value is not None}


@cache
def _names(payload: type[Payload]) -> tuple[str, ...]:
    return tuple(one.name for one in fields(payload))


_AS_TEXT: Final[Mapping[type, Callable[[Any], str]]] = {Decimal: decimal_text, datetime: time_text, UUID: str}


def _json(value: object) -> object:
    as_text = _AS_TEXT.get(type(value))
    return value if as_text is None else as_text(value)
