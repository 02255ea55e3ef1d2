"""TLS and mutual TLS over both transports: whom the client trusts, and what it shows."""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest

from closeflow_client import Client, ConnectionFailed, OutcomeUnknown

from .answers import request_body
from .blocking import blocking
from .certificates import Authority, Pair
from .grpc_answers import accepted
from .scripted_grpc import Give, ScriptedGrpc
from .scripted_http import Say, ScriptedServer

BOTH: Final = pytest.mark.parametrize("kind", ["sync", "async"])
TRANSPORTS: Final = pytest.mark.parametrize("transport", ["rest", "grpc"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that nobody trusts by default."""
    return Authority(tmp_path)


@contextmanager
def serving(transport: str, pair: Pair, clients_of: Authority | None = None) -> Iterator[str]:
    """The address of a server that accepts one close; with `clients_of` only from a client with a certificate."""
    if transport == "rest":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
        if clients_of is not None:
            context.load_verify_locations(clients_of.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        server: ScriptedServer | ScriptedGrpc = ScriptedServer(Say(201, request_body()), tls=context)
    else:
        roots = None if clients_of is None else clients_of.certificate.read_bytes()
        credentials = grpc.ssl_server_credentials(
            [(pair.key.read_bytes(), pair.certificate.read_bytes())], roots, require_client_auth=roots is not None
        )
        server = ScriptedGrpc(deque([Give((accepted(),))]), credentials)
    try:
        yield server.address
    finally:
        server.stop()


@BOTH
@TRANSPORTS
def test_a_server_of_the_given_authority_is_trusted(kind: str, transport: str, authority: Authority) -> None:
    with serving(transport, authority.signs("server")) as address:
        assert address.startswith(("https://", "grpcs://"))
        with blocking(kind, address, ca_file=authority.certificate) as client:
            assert client.close(7).position_id == 7


@BOTH
@TRANSPORTS
def test_another_server_is_refused_at_once_and_sent_nothing(kind: str, transport: str, authority: Authority) -> None:
    """No token reaches it, and it is not tried for half a minute: the next attempt would fail alike."""
    with serving(transport, authority.signs("server")) as address, blocking(kind, address) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            client.close(7)
    assert time.monotonic() - began < 10
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value).upper()
    assert caught.value.outcome_unknown is False


@BOTH
@TRANSPORTS
def test_a_client_certificate_is_shown(kind: str, transport: str, authority: Authority) -> None:
    mine = authority.signs("client")
    with serving(transport, authority.signs("server"), clients_of=authority) as address:
        shown = {"certificate_file": mine.certificate, "key_file": mine.key}
        with blocking(kind, address, ca_file=authority.certificate, **shown) as client:
            assert client.close(7).position_id == 7


@TRANSPORTS
def test_without_one_a_server_that_wants_it_accepts_nothing(transport: str, authority: Authority) -> None:
    with serving(transport, authority.signs("server"), clients_of=authority) as address:
        client = Client(address, "t", ca_file=authority.certificate, retry_for=0)
        with client, pytest.raises((ConnectionFailed, OutcomeUnknown)):
            client.close(7)


@pytest.mark.parametrize(
    ("address", "files", "message"),
    [
        ("http://host", {"ca_file": "ca.pem"}, "use https:// or grpcs://"),
        ("grpc://host:1", {"certificate_file": "c.pem"}, "use https:// or grpcs://"),
        ("https://host", {"key_file": "c.key"}, "key_file without certificate_file"),
    ],
)
def test_files_that_would_have_no_effect_are_refused(address: str, files: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(address, **files)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["https://host", "grpcs://host:1"])
def test_a_file_that_is_not_there_is_named_at_once(address: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Client(address, ca_file=tmp_path / "none.pem")
