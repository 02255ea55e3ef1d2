"""Bytes that are no call: each is refused in bounded time, the server lives on, and nothing is closed by them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest
from structlog.testing import capture_logs

from close_api.grpc.server import Limits
from closeflow_client.generated import close_pb2 as pb

from .grpc_serving import ACC, Served, failing, serving
from .raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    call_head,
    connected,
    frame,
)

SERVICE: Final = "/closeflow.close.v1.CloseService/"
UNARY: Final = (
    "ClosePosition",
    "GetCloseRequest",
    "ListCloseRequests",
    "CancelCloseRequest",
    "GetPosition",
    "ListPositions",
)
METHODS: Final = (*UNARY, "WatchCloseRequest", "ClosePositions")
REFUSALS: Final = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED}
WITHIN_S: Final = 5.0
VALID: Final = pb.Close(position_id=7, idempotency_key="k", quantity="3", reason="because", deadline={"seconds": 9})


@asynccontextmanager
async def unharmed(**limits: Any) -> AsyncIterator[Served]:
    """A server that afterwards still closes, that has closed nothing before, and that logged no error of its own."""
    with capture_logs() as logs:
        async with serving(**limits) as served:
            yield served
            assert served.positions.asked == []
            async with served.stub() as api:
                close = pb.ClosePositionRequest(close=pb.Close(position_id=1, idempotency_key="k"))
                assert (await api.ClosePosition(close, metadata=ACC)).close_request.position_id == 1
    assert [one for one in logs if one["log_level"] == "error"] == []


async def ask(channel: grpc.aio.Channel, method: str, raw: bytes) -> grpc.StatusCode:
    """How a call with these bytes as its message ends."""
    path = SERVICE + method
    call: Any
    one: Any = channel.unary_stream(path) if method == "WatchCloseRequest" else channel.unary_unary(path)
    if method == "ClosePositions":
        call = channel.stream_stream(path)(metadata=ACC, timeout=WITHIN_S)
        await call.write(raw)
        await call.done_writing()
    else:
        call = one(raw, metadata=ACC, timeout=WITHIN_S)
    code: grpc.StatusCode = await call.code()
    return code


def garbage() -> Iterator[bytes]:
    """Random bytes, messages that are cut off, and messages with a byte or a field that is wrong."""
    source = random.Random(20260302)
    for length in (1, 2, 3, 10, 100, 1000, 60_000):
        for _ in range(4):
            yield source.randbytes(length)
    whole = pb.ClosePositionRequest(close=VALID).SerializeToString()
    for cut in range(1, len(whole)):
        yield whole[:cut]
    for _ in range(50):
        changed = bytearray(whole)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        changed += b"\xff"  # So that none of them is a close after all.
        yield bytes(changed)
    yield b"\x0b" * 60_000  # Groups in groups, never closed.
    yield b"\x0b" * 50 + b"\x0c" * 50
    yield b"\x0a\xff\xff\xff\xff\x0f"  # A field of 4 GiB.
    yield b"\x0a\x04\x12\x02\xff\xfe"  # A string that is not UTF-8.
    yield whole + b"\x92\x03\x00"  # An unknown field behind a good close.
    yield b"\x0a" + bytes([len(VALID.SerializeToString()) + 3]) + VALID.SerializeToString() + b"\x92\x03\x00"


@pytest.mark.parametrize("method", METHODS)
async def test_garbage_in_place_of_a_message_is_refused(method: str) -> None:
    async with unharmed() as served, served.channel() as channel:
        for raw in garbage():
            code = await ask(channel, method, raw)
            read = code is grpc.StatusCode.OK and method.startswith("List")
            assert code in REFUSALS or read, (code, raw[:80])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("size", "code"),
    [(70_000, grpc.StatusCode.INVALID_ARGUMENT), (2 * 1024 * 1024, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
async def test_a_message_that_is_too_large_is_refused(method: str, size: int, code: grpc.StatusCode) -> None:
    async with unharmed() as served, served.channel() as channel:
        assert await ask(channel, method, b"\x92\x03" + bytes([0xFF, 0xFF, 0x7F]) + b"x" * size) is code


@pytest.mark.parametrize(
    "path",
    [SERVICE + "Nothing", SERVICE + "closePosition", "/closeflow.v2.CloseService/ClosePosition", "/x", "/"],
)
async def test_another_method_is_unimplemented(path: str) -> None:
    async with unharmed() as served, served.channel() as channel:
        call: Any = channel.unary_unary(path)
        assert await call(b"", metadata=ACC, timeout=WITHIN_S).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_compressed_message_is_not_unpacked() -> None:
    async with (
        unharmed() as served,
        grpc.aio.insecure_channel(served.address, compression=grpc.Compression.Gzip) as channel,
    ):
        code = await ask(channel, "ClosePosition", b"\x92\x03" + bytes([0xFF, 0xFF, 0x7F]) + b"x" * 500_000)
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_beyond_the_limit_is_refused() -> None:
    async with unharmed() as served, served.channel() as channel:
        call: Any = channel.unary_unary(SERVICE + "GetPosition")
        many = tuple((f"x-{n}", "v" * 1000) for n in range(40))
        assert await call(b"\x08\x01", metadata=(*ACC, *many), timeout=WITHIN_S).code() is (
            grpc.StatusCode.RESOURCE_EXHAUSTED
        )


@pytest.mark.parametrize("value", ["Bearer " + "a" * 9_000, "bearer acc", "Basic YQ=="])
async def test_an_odd_authorization_is_no_token(value: str) -> None:
    async with unharmed() as served, served.stub() as api:
        request = pb.GetPositionRequest(position_id=7)
        refused = await failing(api.GetPosition(request, metadata=(("authorization", value),)))
    assert refused.reason == "UNAUTHENTICATED"


SETTLED: Final = PREFACE + frame(SETTINGS)
CLOSE: Final = SERVICE + "ClosePosition"
WHOLE: Final = pb.ClosePositionRequest(close=VALID).SerializeToString()
MESSAGE: Final = b"\x00" + len(WHOLE).to_bytes(4) + WHOLE
TOKEN: Final = ("authorization", "Bearer acc")


@pytest.mark.parametrize(
    "block",
    [
        call_head(CLOSE, TOKEN, content_type="application/json"),
        call_head(CLOSE, TOKEN, content_type="text/plain"),
        call_head(CLOSE, TOKEN).replace(b"POST", b"BREW"),
        call_head(CLOSE, TOKEN).replace(b"te\x08trailers", b"x-\x08trailers"),
        call_head(CLOSE, TOKEN, ("grpc-timeout", "rubbish")),
        call_head(CLOSE, TOKEN, ("grpc-encoding", "gzip")),
        call_head(CLOSE, ("authorization", "Bearer \xff\xfe")),
    ],
    ids=["json", "text", "method", "te", "timeout", "encoding", "bytes"],
)
async def test_a_call_that_is_not_grpc_is_refused_or_read_as_one(block: bytes) -> None:
    """Whichever it is, it ends in bounded time; what is read as a call is one close, as it was asked for."""
    with capture_logs() as logs:
        async with serving() as served, connected(served.made.port) as raw:
            body = frame(DATA, MESSAGE, flags=END_STREAM, stream=1)
            raw.send(SETTLED, frame(HEADERS, block, flags=END_HEADERS, stream=1), body)
            assert await raw.ending_of(1, within_s=WITHIN_S)
            assert len(served.positions.asked) <= 1
    assert [one for one in logs if one["log_level"] == "error"] == []


@pytest.mark.parametrize(
    "body",
    [
        MESSAGE[:-1],
        MESSAGE[:3],
        b"",
        b"\x00" + (2**32 - 1).to_bytes(4) + WHOLE,
        b"\x01" + MESSAGE[1:],
        b"\x07" + MESSAGE[1:],
        MESSAGE + MESSAGE,
    ],
    ids=["cut", "head cut", "nothing", "4 GiB", "said to be compressed", "odd flags", "two"],
)
async def test_a_body_that_is_not_one_message_closes_nothing(body: bytes) -> None:
    async with unharmed() as served, connected(served.made.port) as raw:
        block = frame(HEADERS, call_head(CLOSE, TOKEN), flags=END_HEADERS, stream=1)
        raw.send(SETTLED, block, frame(DATA, body, flags=END_STREAM, stream=1))
        assert await raw.ending_of(1, within_s=WITHIN_S)


async def test_a_message_that_does_not_come_to_its_end_is_not_waited_for() -> None:
    async with unharmed(deadline_s=0.5) as served, connected(served.made.port) as raw:
        block = frame(HEADERS, call_head(CLOSE, TOKEN), flags=END_HEADERS, stream=1)
        raw.send(SETTLED, block, frame(DATA, MESSAGE[:-1], stream=1))
        assert await raw.ending_of(1, within_s=WITHIN_S)


@pytest.mark.parametrize(
    "said",
    [
        b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 10_000,
        PREFACE + b"\xff" * 100,
        PREFACE + frame(HEADERS, b"\xff" * 100, flags=END_HEADERS, stream=1),
        PREFACE + frame(SETTINGS) + frame(HEADERS, b"\xff" * 100, flags=END_HEADERS, stream=1),
        PREFACE + frame(SETTINGS, b"\x00" * 5),
        PREFACE + frame(SETTINGS) + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    ],
    ids=["http/1.1", "tls", "zeros", "no settings", "no settings first", "no header block", "settings", "large frame"],
)
async def test_a_connection_that_speaks_otherwise_is_ended(said: bytes) -> None:
    async with unharmed(limits=Limits(handshake_s=1.0)) as served, connected(served.made.port) as raw:
        raw.send(said)
        await raw.rest(within_s=WITHIN_S)


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half a preface", "no settings"])
async def test_a_connection_that_does_not_begin_is_ended(said: bytes) -> None:
    async with unharmed(limits=Limits(handshake_s=1.0)) as served, connected(served.made.port) as raw:
        raw.send(said)
        await raw.rest(within_s=WITHIN_S)


async def test_pings_without_end_end_the_connection() -> None:
    async with unharmed() as served, connected(served.made.port) as raw:
        raw.send(SETTLED, *(frame(PING, n.to_bytes(8)) for n in range(20)))
        kinds = set()
        async with asyncio.timeout(WITHIN_S):
            async for one in raw.frames():
                kinds.add((one.kind, one.payload[8:]) if one.kind == GOAWAY else (one.kind, b""))
    assert (GOAWAY, b"too_many_pings") in kinds
