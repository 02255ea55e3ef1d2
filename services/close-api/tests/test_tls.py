"""TLS follows its files while the service runs; files that serve nothing replace nothing. And so does the REST door."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
from certificate_authority import (
    CA,
    CLIENT,
    CLIENTS,
    FIRST,
    OTHER,
    OTHERS,
    SECOND,
    context_of,
    der,
    looked_at_always,
    place,
)
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from close_api.auth.tls import BadCertificate, Certificates, TlsFiles
from close_api.rest.server import HEAD_WITHIN_S, make_server
from closeflow.clock import HostClock, driven_by

DEADLINE_S: Final = 10.0
Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


# The files


def handshake(context: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """The certificate that a client gets, without a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in (*ends, *ends):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    found = ends[0].getpeercert(binary_form=True)
    assert found is not None
    return found


def test_the_files_are_looked_at_once_a_second(tmp_path: Path) -> None:
    ahead = Ahead()
    with driven_by(ahead):
        front = Certificates(place(tmp_path, FIRST)).http_context()
        client = context_of(None, tmp_path)
        place(tmp_path, SECOND)
        assert handshake(front, client) == der(FIRST)
        ahead.by = 1
        assert handshake(front, client) == der(SECOND)


class Ahead(HostClock):
    """The host's clock, put forward by hand."""

    by = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.by


Change = Callable[[TlsFiles], object]


def instead_of_the_key(make: Callable[[Path], object]) -> Change:
    def change(files: TlsFiles) -> None:
        files.key.unlink()
        make(files.key)

    return change


SECURED: Final = CA.pair(secured_by=BestAvailableEncryption(b"password"))
BROKEN: Final[dict[str, tuple[Change, str]]] = {
    "no certificate": (lambda files: files.certificate.unlink(), "tls.crt cannot be read"),
    "no key": (lambda files: files.key.unlink(), "tls.key cannot be read"),
    "an empty certificate": (lambda files: files.certificate.write_bytes(b""), "tls.crt is no PEM file"),
    "half a certificate": (lambda files: files.certificate.write_bytes(SECOND.certificate[:200]), "tls.crt is no PEM"),
    "no PEM": (lambda files: files.key.write_bytes(b"\xff" * 100), "tls.key is no PEM file of a private key"),
    "a key with a password": (lambda files: files.key.write_bytes(SECURED.key), "without a password"),
    "the key of another": (lambda files: files.key.write_bytes(SECOND.key), "is not the key of the certificate"),
    "a huge file": (lambda files: files.certificate.write_bytes(b" " * 2**20 + FIRST.certificate), "is larger than"),
    "a directory": (instead_of_the_key(Path.mkdir), "tls.key cannot be read"),
    "a pipe": (instead_of_the_key(os.mkfifo), "tls.key is no PEM"),
    "no authority": (lambda files: authorities(files).write_bytes(b"none"), "ca.crt is no PEM file of authorities"),
    "a key for an authority": (lambda files: authorities(files).write_bytes(FIRST.key), "ca.crt is no PEM file"),
}


def authorities(files: TlsFiles) -> Path:
    assert files.client_ca is not None
    return files.client_ca


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_service_does_not_begin_with_files_that_serve_nothing(tmp_path: Path, change: Change, reason: str) -> None:
    files = place(tmp_path, FIRST, client_ca=CLIENTS.pem)
    change(files)
    with pytest.raises(BadCertificate) as raised:
        Certificates(files)
    assert reason in str(raised.value)
    assert "PRIVATE" not in str(raised.value)


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN)
def test_files_that_serve_nothing_replace_nothing_and_are_told_once(
    tmp_path: Path, logs: Logs, change: Change, reason: str
) -> None:
    files = place(tmp_path, FIRST, client_ca=CLIENTS.pem)
    front = looked_at_always(files).http_context()
    client = context_of(CLIENT, tmp_path)
    change(files)
    assert [handshake(front, client) for _ in range(3)] == [der(FIRST)] * 3
    assert [one["reason"] for one in logs if one["log_level"] == "error"] == [AnyText(reason)]
    if files.key.is_dir():
        files.key.rmdir()
    place(tmp_path, SECOND, client_ca=CLIENTS.pem)
    assert [handshake(front, client) for _ in range(3)] == [der(SECOND)] * 3
    assert [one["event"] for one in logs] == [
        *("tls_certificate_loaded", "tls_certificate_not_replaced", "tls_certificate_loaded")
    ]


def test_a_renewal_that_is_seen_half_done_is_no_error(tmp_path: Path, logs: Logs) -> None:
    files = place(tmp_path, FIRST)
    front = looked_at_always(files).http_context()
    client = context_of(None, tmp_path)
    files.certificate.write_bytes(SECOND.certificate)
    assert handshake(front, client) == der(FIRST)
    files.key.write_bytes(SECOND.key)
    assert handshake(front, client) == der(SECOND)
    assert [one["event"] for one in logs] == ["tls_certificate_loaded"] * 2


class AnyText(str):
    """Equal to every text that it is in."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other

    __hash__ = str.__hash__


# Over HTTP


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


@contextmanager
def http_door(certificates: Certificates, run: Callable[[Any], None] = asyncio.run) -> Iterator[int]:
    """The port of the REST server, in a loop of its own."""
    server = make_server(hello, answer_within_s=1, tls=certificates.http_context())
    with socket.create_server(("127.0.0.1", 0)) as bound:
        serving = threading.Thread(target=lambda: run(server.serve([bound])))
        serving.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            serving.join(DEADLINE_S)


@contextmanager
def connection(port: int, context: ssl.SSLContext, **how: Any) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain,
        context.wrap_socket(plain, **({"server_hostname": "localhost"} | how)) as secured,
    ):
        yield secured


def call(over: ssl.SSLSocket) -> None:
    """One call, answered."""
    over.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = b""
    while b"hello" not in answer:
        piece = over.recv(65_536)
        if not piece:
            raise ConnectionError("the connection ended")
        answer += piece


def served(port: int, context: ssl.SSLContext, **how: Any) -> bytes:
    """The certificate of a new connection, over which a call was answered."""
    with connection(port, context, **how) as secured:
        call(secured)
        found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found


LOOPS: Final[dict[str, Callable[[Any], None]]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
REFUSED: Final = (ssl.SSLError, ConnectionError)


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_http_serves_a_new_certificate_without_a_restart(tmp_path: Path, run: Callable[[Any], None]) -> None:
    context = context_of(None, tmp_path)
    with http_door(looked_at_always(place(tmp_path, FIRST)), run) as port, connection(port, context) as old:
        call(old)
        assert served(port, context) == der(FIRST)
        place(tmp_path, SECOND)
        assert served(port, context) == der(SECOND)
        call(old)
        assert old.getpeercert(binary_form=True) == der(FIRST)


def test_a_client_that_names_no_server_gets_the_new_certificate_too(tmp_path: Path) -> None:
    context = context_of(None, tmp_path)
    context.check_hostname = False
    with http_door(looked_at_always(place(tmp_path, FIRST))) as port:
        place(tmp_path, SECOND)
        assert served(port, context, server_hostname=None) == der(SECOND)


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_http_lets_in_whom_the_authorities_of_now_vouch_for(
    tmp_path: Path, run: Callable[[Any], None], version: ssl.TLSVersion
) -> None:
    contexts = [context_of(client, tmp_path) for client in (None, CLIENT, OTHER)]
    for context in contexts:
        context.maximum_version = version
    nobody, ours, others = contexts
    with http_door(looked_at_always(place(tmp_path, FIRST, client_ca=CLIENTS.pem)), run) as port:
        with connection(port, ours) as first:
            call(first)
            session = first.session
        for context in (nobody, others):
            with pytest.raises(REFUSED):
                served(port, context)
        place(tmp_path, SECOND, client_ca=OTHERS.pem)
        assert served(port, others) == der(SECOND)
        for context, how in ((nobody, {}), (ours, {}), (ours, {"session": session})):
            with pytest.raises(REFUSED):
                served(port, context, **how)


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_a_handshake_is_waited_for_no_longer_than_a_head(tmp_path: Path, run: Callable[[Any], None]) -> None:
    """Until then the connection is none of those that are counted."""
    with http_door(looked_at_always(place(tmp_path, FIRST)), run) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=HEAD_WITHIN_S + 5) as silent:
            assert silent.recv(1) == b""
        served(port, context_of(None, tmp_path))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_http_speaks_tls_1_2_and_later_and_no_other_protocol(tmp_path: Path) -> None:
    with http_door(looked_at_always(place(tmp_path, FIRST))) as port:
        context = context_of(None, tmp_path)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with connection(port, context) as chosen:
            assert (chosen.selected_alpn_protocol(), chosen.version()) == ("http/1.1", "TLSv1.3")
        for ciphers, version in (
            ("ECDHE-ECDSA-AES128-SHA256", ssl.TLSVersion.TLSv1_2),
            ("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1),
        ):
            context = context_of(None, tmp_path)
            context.set_ciphers(ciphers)
            context.minimum_version = context.maximum_version = version
            with pytest.raises(REFUSED):
                served(port, context)
