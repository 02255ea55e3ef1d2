"""Server-sent events, as far as close-api writes them (HTML standard, section 9.2.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from closeflow_client.calls import Change
from closeflow_client.errors import AnswerUnreadable


@dataclass(slots=True)
class EventStream:
    """Reads a stream piece by piece, however it is cut."""

    _rest: bytes = b""
    _data: list[str] = field(default_factory=list)
    _event_id: str = ""

    def feed(self, piece: bytes) -> Iterator[Change]:
        """The events that `piece` completes. Raises AnswerUnreadable for one that is not a JSON object."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            change = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if change is not None:
                yield change

    def _line(self, line: str) -> Change | None:
        if not line:
            return self._end_of_event()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._event_id = value
        return None

    def _end_of_event(self) -> Change | None:
        if not self._data:
            return None
        text, self._data = "\n".join(self._data), []
        try:
            values = json.loads(text, parse_float=Decimal)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise AnswerUnreadable(f"an event is not a JSON object: {text[:200]!r}")
        return Change(self._event_id, values)
