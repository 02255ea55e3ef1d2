"""Who may call what, how often, and that nobody learns of what is another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from closeflow_client.generated import close_pb2 as pb

from .grpc_serving import ACC, OTHER, failing, serving
from .messages import UNKNOWN, cancel, close, get, position, watch

CALLS: Final[list[tuple[str, Message, str]]] = [
    ("ClosePosition", close(), "write"),
    ("GetCloseRequest", get(), "read"),
    ("ListCloseRequests", pb.ListCloseRequestsRequest(), "read"),
    ("WatchCloseRequest", pb.WatchCloseRequestRequest(close_request_id=UNKNOWN), "read"),
    ("CancelCloseRequest", pb.CancelCloseRequestRequest(close_request_id=UNKNOWN), "write"),
    ("GetPosition", pb.GetPositionRequest(position_id=7), "read"),
    ("ListPositions", pb.ListPositionsRequest(), "read"),
]
METHODS: Final = pytest.mark.parametrize(("name", "message", "scope"), CALLS, ids=[name for name, _, _ in CALLS])


@METHODS
@pytest.mark.parametrize(
    "metadata",
    [(), (("authorization", "Bearer wrong"),), (*ACC, *ACC), (("authorization", ""),)],
    ids=["none", "unknown", "two", "empty"],
)
async def test_nobody_comes_in_without_one_good_token(name: str, message: Message, scope: str, metadata: Any) -> None:
    async with serving() as served, served.stub() as api:
        refused = await failing(getattr(api, name)(message, metadata=metadata))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert served.positions.asked == []


@METHODS
async def test_a_token_without_the_scope_is_told_which_one(name: str, message: Message, scope: str) -> None:
    token = "Bearer reader" if scope == "write" else "Bearer nothing"
    async with serving() as served, served.stub() as api:
        refused = await failing(getattr(api, name)(message, metadata=(("authorization", token),)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
    assert refused.metadata["scope"] == f"close:{scope}"


async def test_what_is_wrong_with_the_message_is_told_before_who_may_send_it() -> None:
    async with serving() as served, served.stub() as api:
        refused = await failing(api.ClosePosition(close(0)))
    assert refused.fields == {"position_id": f"must be a whole number from 1 to {2**63 - 1}"}


async def test_closes_are_counted_and_refused_beyond_the_rate() -> None:
    async with serving(rate_limit=2) as served, served.stub() as api:
        call = api.ClosePosition(close(1), metadata=ACC)
        await call
        first = dict(await call.trailing_metadata())
        await api.GetPosition(pb.GetPositionRequest(position_id=1), metadata=ACC)
        await api.ClosePosition(close(2), metadata=ACC)
        refused = await failing(api.ClosePosition(close(3), metadata=ACC))
    assert first["ratelimit-policy"] == '"closes";q=2;w=60'
    assert str(first["ratelimit"]).startswith('"closes";r=1;')
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.retry_after_s == 30
    assert str(refused.trailers["ratelimit"]).startswith('"closes";r=0;')
    assert len(served.positions.accepted()) == 2


async def test_what_is_not_there_and_what_is_not_the_callers_are_the_same_bytes() -> None:
    async with serving() as served, served.stub() as api:
        mine = await api.ClosePosition(close(), metadata=ACC)
        there = mine.close_request.close_request_id
        pairs: list[tuple[Callable[[Any], Any], Message, Message]] = [
            (lambda m: api.ClosePosition(m, metadata=OTHER), close(7), close(999)),
            (lambda m: api.GetPosition(m, metadata=OTHER), position(7), position(999)),
            (lambda m: api.GetCloseRequest(m, metadata=OTHER), get(there), get(UNKNOWN)),
            (lambda m: api.GetCloseRequest(m, metadata=OTHER), get(there, wait=Duration(seconds=1)), get(UNKNOWN)),
            (lambda m: api.CancelCloseRequest(m, metadata=OTHER), cancel(there), cancel(UNKNOWN)),
            (lambda m: api.WatchCloseRequest(m, metadata=OTHER), watch(there), watch(UNKNOWN)),
        ]
        for ask, theirs, nobodys in pairs:
            first, second = await failing(ask(theirs)), await failing(ask(nobodys))
            assert first.code is grpc.StatusCode.NOT_FOUND
            assert first.without_passing() == second.without_passing()
