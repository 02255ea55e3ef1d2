"""The events of the outbox as their rows carry them."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from closeflow.domain.model import Event
from closeflow.domain.text import decimal_text, time_text


def event_value(event: Event) -> dict[str, object]:
    """The value of its record as JSON has it: decimals and ids as text, times RFC 3339 in UTC, absent fields left out.

    It is not validated, so that no event can stop the transaction that makes it true.
    """
    values = ((one.name, getattr(event.payload, one.name)) for one in fields(event.payload))
    return {name: _json(value) for name, value in values if value is not None}


def _json(value: object) -> object:
    match value:
        case Decimal():
            return decimal_text(value)
        case datetime():
            return time_text(value)
        case UUID():
            return str(value)
        case _:
            return value
