"""The bytes of a call on a real socket: what ends otherwise than it said closes nothing, and is answered."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import orjson
import pytest
from doors import doors_of

from close_api.batching import Batches
from close_api.rest.app import build_app
from close_api.rest.server import make_server
from closeflow.domain.close.accept import CloseCommand, Decision, PositionClosed
from closeflow.storage.core.engine import make_engine

CLOSE: Final = "POST /v1/positions/7/close HTTP/{version}\r\nHost: api\r\nIdempotency-Key: k\r\n{headers}\r\n"
_CODE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
HALF: Final = '{"quantity": 0.1}'


class Deciding:
    """Answers every close with 409 and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[CloseCommand] = []

    async def __call__(self, commands: Sequence[CloseCommand]) -> list[Decision | Exception]:
        self.asked += commands
        return [PositionClosed(7)] * len(commands)


@asynccontextmanager
async def listening(work: Deciding) -> AsyncIterator[int]:
    """The port of a server whose closes are decided by `work`."""
    batches: Batches[CloseCommand, Decision] = Batches(work=work, capacity=10, size=64, in_flight=1)
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")
    server = make_server(build_app(doors_of(engine, batches)), answer_within_s=2.0)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(batches.run(stop)), asyncio.create_task(server.serve([bound]))]
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            stop.set()
            await asyncio.gather(*tasks)


async def answers_to(port: int, *parts: str, count: int = 1) -> list[str]:
    """The first `count` status codes that these bytes get, or all before the server ends the connection; the parts go
    in segments of their own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        writer.write(part.encode("latin-1"))
        await writer.drain()
        await asyncio.sleep(0.01)  # So that the next part is a segment of its own.
    found = b""
    async with asyncio.timeout(10.0):
        while len(codes := _CODE.findall(found)) < count and (chunk := await reader.read(65_536)):
            found += chunk
    writer.close()
    return [code.decode() for code in codes if code != b"100"]


def call(*headers: str, version: str = "1.1", body: str = "") -> str:
    return CLOSE.format(version=version, headers="".join(f"{one}\r\n" for one in headers)) + body


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([call(version="1.0", body=HALF)], "411"),
        ([call(version="1.0"), HALF], "411"),
        ([call(version="1.0")], "411"),
        ([call("Transfer-Encoding: chunked", version="1.0", body="2\r\n{}\r\n0\r\n\r\n")], "4"),
        ([call(body=HALF)], "400"),
        ([call("Connection: close", body=HALF)], "400"),
        ([call("Connection: Upgrade", "Upgrade: h2c", body=HALF)], "400"),
        ([call("Connection: Upgrade", "Upgrade: h2c", version="1.0", body=HALF)], "411"),
        (["CONNECT api:443 HTTP/1.1\r\nHost: api\r\n\r\n"], "400"),
        ([call("Content-Length: 0", body=HALF)], "400"),
        ([call("Content-Length: 2", body="{}" + HALF)], "400"),
        ([call("Content-Length: 2", "Content-Length: 17", body=HALF)], "400"),
        ([call("Content-Length: -1", body=HALF)], "400"),
        ([call("Content-Length: 2", "Transfer-Encoding: chunked", body="2\r\n{}\r\n0\r\n\r\n")], "400"),
        ([call("Transfer-Encoding: gzip, chunked", body="2\r\n{}\r\n0\r\n\r\n")], "400"),
        ([call("Transfer-Encoding: chunked, gzip", body="2\r\n{}\r\n0\r\n\r\n")], "400"),
        ([call("Transfer-Encoding: chunked", body="x\r\n{}\r\n0\r\n\r\n")], "4"),
        ([call("Content-Length: 17", "Content-Type: text/plain", body=HALF)], "415"),
        ([call("Content-Length: 17", "Content-Encoding: gzip", body=HALF)], "415"),
        ([call("Expect: 200-ok", "Content-Length: 17", body=HALF)], "417"),
        ([call().replace("/close ", "/close?qty=3 ")], "422"),
        ([call().replace("/close ", "/close;qty=3 ")], "404"),
        ([call().replace("/close ", "/close%3Fqty=3 ")], "404"),
        ([call().replace("/close ", "/close#qty=3 ")], "400"),
        ([call("If-Match: two")], "422"),
        ([call('If-Match: "2')], "422"),
        ([call('If-Match: 2"')], "422"),
        ([call('If-Match: W/"2"')], "422"),
        ([call("Idempotency-Key: j")], "400"),
        ([call("Idempotency-Key: k")], "400"),
    ],
)
async def test_a_call_that_is_not_understood_closes_nothing(parts: list[str], status: str) -> None:
    work = Deciding()
    async with listening(work) as port:
        answers = await answers_to(port, *parts)
        assert answers, "no answer"
        assert answers[0].startswith(status), answers
    assert not work.asked


@pytest.mark.parametrize(
    "parts",
    [
        [call("Content-Length: 17", body=HALF)],
        [call("Content-Length: 17"), HALF],
        [call("Content-Length: 17", version="1.0", body=HALF)],
        [call("Content-Length: 17", "Content-Type: application/json", "Expect: 100-continue"), HALF],
        [call("Transfer-Encoding: chunked", body=f"11\r\n{HALF}\r\n0\r\n\r\n")],
        # Java's client offers HTTP/2 on each connection that is not encrypted.
        [call("Content-Length: 17", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", body=HALF)],
        [call("Content-Length: 17", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), HALF],
        [call("Content-Length: 17", "Connection: Upgrade", "Upgrade: websocket"), HALF],
    ],
)
async def test_a_call_that_is_understood_is_read_whole(parts: list[str]) -> None:
    work = Deciding()
    async with listening(work) as port:
        assert await answers_to(port, *parts, count=2 if "Expect" in parts[0] else 1) == ["409"]
    assert [command.quantity for command in work.asked] == [Decimal("0.1")]


async def test_calls_behind_each_other_are_each_their_own() -> None:
    work = Deciding()
    together = call("Content-Length: 17", body=HALF) + call() + call("Content-Length: 0")
    async with listening(work) as port:
        assert await answers_to(port, together, count=3) == ["409"] * 3
    assert [command.quantity for command in work.asked] == [Decimal("0.1"), None, None]


CHUNKED: Final = call("Transfer-Encoding: chunked", body="2\r\n{}\r\n0\r\n")


@pytest.mark.parametrize("trailers", [["If-Match: 9", "X: y"], ["X: " + "y" * 40_000], ["Idempotency-Key: j", "X: y"]])
async def test_headers_behind_a_body_are_refused(trailers: list[str]) -> None:
    work = Deciding()
    async with listening(work) as port:
        parts = [CHUNKED, *(f"{one}\r\n" for one in trailers), "\r\n"]
        assert (await answers_to(port, *parts))[0] in {"400", "431"}
        assert (await answers_to(port, "".join(parts)))[0] in {"400", "431"}
    assert not work.asked


async def test_a_header_behind_a_body_ends_the_connection_before_the_next_call() -> None:
    work = Deciding()
    async with listening(work) as port:
        trailer = 'If-Match: "9"\r\n\r\n'
        assert await answers_to(port, CHUNKED + trailer + call(), count=2) == ["400"]
        assert await answers_to(port, CHUNKED + trailer, call(), count=2) == ["400"]
    assert not work.asked


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


OPENAPI: Final = Path(__file__).resolve().parents[3] / "schemas" / "openapi.json"
DOCUMENT_BYTES: Final = len(orjson.dumps(orjson.loads(OPENAPI.read_bytes())))
DOCUMENT: Final = "GET /openapi.json HTTP/1.1\r\nHost: api\r\n{}\r\n"


@pytest.mark.parametrize("left", [None, 24_000], ids=["of which it takes nothing", "of which it takes the most"])
@pytest.mark.parametrize(
    "sent",
    [
        DOCUMENT.format(""),
        DOCUMENT.format("Connection: close\r\n"),
        DOCUMENT.format("") * 2,
        DOCUMENT.format("") + "GET",
        DOCUMENT.format("") + "no call\r\n\r\n",
    ],
    ids=["one answer", "the last answer", "two answers", "half a head behind it", "no call behind it"],
)
async def test_a_connection_that_takes_no_answer_is_cut(sent: str, left: int | None) -> None:
    """The system keeps little of an answer here, so that the rest lies in the server; it takes all but the `left` bytes
    of the first one, or nothing."""
    batches: Batches[CloseCommand, Decision] = Batches(work=Deciding(), capacity=10, size=64, in_flight=1)
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")
    server = make_server(build_app(doors_of(engine, batches)), answer_within_s=2.0, taken_within_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as bound, socket.socket() as client:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        serving = asyncio.create_task(server.serve([bound]))
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(client, bound.getsockname())
            await asyncio.get_running_loop().sock_sendall(client, sent.encode())
            if left is not None:
                taken = 0
                while taken < DOCUMENT_BYTES - left:
                    taken += len(await asyncio.get_running_loop().sock_recv(client, 4096))
            state = server.server_state
            if left is None:
                await until(lambda: bool(state.connections))
            await until(lambda: not state.connections and not state.tasks)
        finally:
            client.close()
            server.should_exit = True
            await serving
