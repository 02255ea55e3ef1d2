"""Bytes that are no call, half of one or too much of one: a 4xx or a closed connection in bounded time, and no row."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import MINE, Desk, Running

WITHIN_S: Final = 15.0
"""Heads are waited for ten seconds."""


@pytest.fixture
def spoken(api: Running, desk: Desk) -> Iterator[tuple[Callable[[bytes], bytes], int]]:
    """Says these bytes to the door and gives what came back until it closed, or stayed silent; beside it a position.
    Afterwards the door lives and nothing was accepted."""
    (position,) = desk.open_positions(1)

    def say(sent: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", api.http_port), timeout=WITHIN_S) as line:
            answered = b""
            try:
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
                while found := line.recv(65_536):
                    answered += found
            except (ConnectionResetError, BrokenPipeError):
                pass
            return answered

    yield say, position
    assert httpx.get(f"{api.url}/healthz").status_code == 200
    assert desk.requests() == 0


def head(position: int, desk: Desk, *lines: str, version: str = "1.1", method: str = "POST") -> bytes:
    token = desk.issuer.token(MINE)
    first = f"{method} /v1/positions/{position}/close HTTP/{version}"
    fixed = ("Host: x", f"Authorization: Bearer {token}", "Idempotency-Key: k")
    return "\r\n".join((first, *fixed, *lines, "", "")).encode("latin-1")


BROKEN: Final[list[tuple[tuple[str, ...], bytes]]] = [
    (("Transfer-Encoding: chunked",), b"zz\r\n{}\r\n0\r\n\r\n"),
    (("Transfer-Encoding: chunked",), b"5\r\n{}\r\n0\r\n\r\n"),
    (("Transfer-Encoding: chunked",), b"ffffffffffffffff\r\n{}"),
    (("Transfer-Encoding: chunked",), b"-1\r\n{}\r\n0\r\n\r\n"),
    (("Transfer-Encoding: chunked", "Content-Length: 2"), b"2\r\n{}\r\n0\r\n\r\n"),
    (("Transfer-Encoding: gzip, chunked",), b"2\r\n{}\r\n0\r\n\r\n"),
    (("Transfer-Encoding: chunked", "Trailer: X"), b"2\r\n{}\r\n0\r\nX: 1\r\n\r\n"),
    (("Content-Length: 2", "Content-Length: 3"), b"{}"),
    (("Content-Length: -1",), b"{}"),
    (("Content-Length: 2x",), b"{}"),
    (("Content-Length: 99999999999999999999",), b"{}"),
    (("Content-Length: 5",), b"{}"),
    (("Content-Length: 0",), b"{}garbage"),
    (("Expect: 200-ok", "Content-Length: 2"), b"{}"),
    (("Content-Type: application/json",), b"{}"),
    (("Content-Length: 9",), b'{"quanti'),
    (("Authorization: Bearer x",), b""),
    (("Idempotency-Key: other",), b""),
    (("X" * 70_000 + ": 1",), b""),
    (("X: " + "y" * 70_000,), b""),
    (("If-Match: 1", "If-Match: 2"), b""),
    (("no colon here",), b""),
    ((" folded: yes",), b""),
    (("Host : x",), b""),
    (("X: a\x00b",), b""),
]


def test_a_head_or_body_that_is_broken_is_refused(spoken: tuple[Callable[[bytes], bytes], int], desk: Desk) -> None:
    say, position = spoken
    for lines, body in BROKEN:
        began = time.monotonic()
        answer = say(head(position, desk, *lines) + body)
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), (lines, answer[:300])
        assert time.monotonic() - began < WITHIN_S, lines


def test_other_methods_and_versions_close_nothing(spoken: tuple[Callable[[bytes], bytes], int], desk: Desk) -> None:
    say, position = spoken
    for method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "BREW", "PRI", ""):
        answer = say(head(position, desk, method=method))
        assert not answer or answer.startswith(b"HTTP/1.1 4"), (method, answer[:200])
    for version in ("0.9", "1.0", "1.2", "2.0", "9.9", "x"):
        answer = say(head(position, desk, version=version) + b"{}")
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), (version, answer[:200])
    assert say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 4")


def test_ten_megabytes_of_headers_end_the_connection(spoken: tuple[Callable[[bytes], bytes], int], desk: Desk) -> None:
    say, position = spoken
    for lines in ([f"X-{n}: {'y' * 1000}" for n in range(10_000)], ["X: " + "y" * 10_000_000]):
        began = time.monotonic()
        answer = say(head(position, desk, *lines))
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
        assert time.monotonic() - began < WITHIN_S


def test_half_a_call_is_waited_for_no_longer_than_ten_seconds(api: Running, desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    whole = head(position, desk)
    lines = []
    began = time.monotonic()
    for cut in (0, 1, len(whole) // 2, len(whole) - 2):
        line = socket.create_connection(("127.0.0.1", api.http_port), timeout=WITHIN_S)
        line.sendall(whole[:cut])
        lines.append(line)
    for line in lines:
        answer = line.recv(4096)
        assert not answer or answer.startswith(b"HTTP/1.1 408"), answer
        assert time.monotonic() - began < WITHIN_S
        line.close()
    assert desk.requests() == 0


def test_a_head_that_trickles_in_is_cut_off(api: Running, desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", api.http_port), timeout=1.0) as line:
        line.sendall(head(position, desk)[:-4])
        answer = b""
        while not answer and time.monotonic() - began < WITHIN_S:
            try:
                line.sendall(b"\r\nX: y")
                answer = line.recv(4096)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert time.monotonic() - began < WITHIN_S
    assert not answer or answer.startswith(b"HTTP/1.1 408")
    assert desk.requests() == 0


@pytest.mark.parametrize("line", ["GET /healthz", "POST /v1/positions/1/close", "GET /nowhere"])
def test_the_body_of_a_call_that_was_answered_without_it_is_cut_off(api: Running, line: str) -> None:
    """A byte now and then kept such a connection for ever, without a token."""
    with socket.create_connection(("127.0.0.1", api.http_port), timeout=1.0) as held:
        held.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n".encode())
        began = time.monotonic()
        assert held.recv(65_536).startswith(b"HTTP/1.1 4")
        with pytest.raises((ConnectionResetError, BrokenPipeError, EOFError)):  # noqa: PT012
            while time.monotonic() - began < WITHIN_S:
                held.sendall(b"x")
                try:
                    if not held.recv(65_536):
                        raise EOFError
                except TimeoutError:
                    continue


def test_a_call_that_was_answered_before_its_body_is_not_the_last_of_its_connection(api: Running) -> None:
    with socket.create_connection(("127.0.0.1", api.http_port), timeout=WITHIN_S) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        refused = http.client.HTTPResponse(line)
        refused.begin()
        refused.read()
        line.sendall(b"{}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (refused.status, line.recv(65_536)[:12]) == (400, b"HTTP/1.1 200")


def test_half_a_head_behind_a_call_takes_nothing_of_its_answer(rest: httpx.Client, api: Running, desk: Desk) -> None:
    """Heads are waited for ten seconds; the answer to the call before may take longer."""
    (position,) = desk.open_positions(1)
    accepted = rest.post(f"/v1/positions/{position}/close", headers={"Idempotency-Key": "k"})
    first = f"GET {accepted.headers['location']}?wait=11s HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", api.http_port), timeout=WITHIN_S) as line:
        line.sendall(f"{first}Authorization: {rest.headers['authorization']}\r\n\r\nGET /heal".encode())
        assert line.recv(65_536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("behind", [b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000, b"\x00\x01\r\n\r\n"])
@pytest.mark.parametrize("waiting", ["?wait=2s", "/watch"])
def test_what_is_refused_behind_a_call_takes_nothing_of_its_answer(
    rest: httpx.Client, api: Running, desk: Desk, behind: bytes, waiting: str
) -> None:
    (position,) = desk.open_positions(1)
    accepted = rest.post(f"/v1/positions/{position}/close", headers={"Idempotency-Key": "k"})
    first = f"GET {accepted.headers['location']}{waiting} HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", api.http_port), timeout=4) as line:
        line.sendall(f"{first}Authorization: {rest.headers['authorization']}\r\n\r\n".encode())
        answer = line.recv(65_536) if waiting == "/watch" else b""
        line.sendall(behind)
        with suppress(TimeoutError):
            while found := line.recv(65_536):
                answer += found
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_pipelined_calls_are_answered_in_order(api: Running, desk: Desk) -> None:
    first, second = desk.open_positions(2)
    calls = head(first, desk) + head(second, desk, "Content-Length: 2") + b"{}" + head(first, desk, "Connection: close")
    with socket.create_connection(("127.0.0.1", api.http_port), timeout=WITHIN_S) as line:
        line.sendall(calls)
        answered = b""
        while found := line.recv(65_536):
            answered += found
    assert [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]] == [b"201", b"201", b"200"]
    assert desk.requests() == 2


def test_more_connections_than_are_allowed_are_turned_away_before_they_speak(desk: Desk) -> None:
    with desk.api(MAX_CONNECTIONS="5") as api:
        held = [socket.create_connection(("127.0.0.1", api.http_port), timeout=WITHIN_S) for _ in range(12)]
        turned_away = 0
        for line in held[5:]:
            answer = line.recv(4096)
            turned_away += answer.startswith(b"HTTP/1.1 503")
        for line in held:
            line.close()
        assert turned_away == 7
        until = time.monotonic() + 10
        while httpx.get(f"{api.url}/healthz").status_code != 200:
            assert time.monotonic() < until


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=400), cut=st.integers(0, 400), whole=st.booleans())
def test_noise_closes_nothing(
    spoken: tuple[Callable[[bytes], bytes], int], desk: Desk, noise: bytes, cut: int, whole: bool
) -> None:
    say, position = spoken
    begun = head(position, desk, "Content-Length: 400")
    answer = say(begun + noise[:399] if whole else begun[: min(cut, len(begun) - 4)] + noise)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:300]
