"""Whatever is answered, a caller gets a value or a CloseflowError, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from closeflow_client import Close, CloseflowError
from closeflow_client.calls import (
    Answered,
    Call,
    CloseMany,
    ClosePosition,
    GetPosition,
    ListCloseRequests,
    PlanClose,
)
from closeflow_client.rest.events import EventStream
from closeflow_client.rest.messages import reply_of
from closeflow_client.values import read_close_request

from .answers import REQUEST_ID, position_body, problem, request_body

NOW: Final = datetime(2026, 3, 2, tzinfo=UTC)
CLOSE: Final = Close(7, key="k")
CALLS: Final[tuple[Call[Any], ...]] = (
    ClosePosition(CLOSE),
    PlanClose(CLOSE),
    CloseMany((CLOSE,)),
    GetPosition(7),
    ListCloseRequests(),
)
LEAVES: Final = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([REQUEST_ID, "2026-03-02T15:00:00Z", "0001-01-01T00:00:00+23:59", "1e999999", "-0", "NaN"])
)
VALUES: Final = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """A body of the contract in which some members are something else, or are inside another body; or anything."""
    whole = draw(st.sampled_from([request_body(), position_body(), problem("not_found", 404, fields=[])]))
    names = st.sampled_from([*whole, "results", "close_requests", "order", "fields"])
    changed = whole | draw(st.dictionaries(names, VALUES, max_size=4))
    around = draw(st.sampled_from(["", "close_requests", "order", "results"]))
    inside = {"close_request": changed} if around == "results" else changed
    return draw(st.just({around: [inside] if around != "order" else inside} if around else changed) | VALUES)


@settings(deadline=None)
@given(
    body=bodies().map(lambda body: json.dumps(body).encode()) | st.binary(max_size=200),
    status=st.sampled_from([200, 201, 202, 204, 302, 400, 404, 409, 429, 500, 503, 599]),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "should-retry", "trace-id", "location", "idempotency-replayed"]),
        st.text(max_size=40),
    ),
)
def test_any_response_is_a_value_or_an_error(body: bytes, status: int, headers: dict[str, str]) -> None:
    reply = reply_of(status, headers, body, now=NOW)
    if isinstance(reply, CloseflowError):
        assert str(reply)
        assert reply.status == status
        return
    for call in CALLS:
        with suppress(CloseflowError):
            assert call.read(Answered(dict(reply.values))) is not None


PIECES: Final = st.binary(max_size=40) | st.sampled_from([b"data: {}\n", b"\n", b"id: 1\r\n", b"data:"])


@settings(deadline=None)
@given(pieces=st.lists(PIECES, max_size=20))
def test_any_stream_is_events_or_an_error(pieces: list[bytes]) -> None:
    stream = EventStream()
    with suppress(CloseflowError):
        for piece in pieces:
            for change in stream.feed(piece):
                read_close_request(change.values)
