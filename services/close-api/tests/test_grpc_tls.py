"""The gRPC door serves the certificate that the files hold now, and lets in whom the authorities of now vouch for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from certificate_authority import (
    CA,
    CLIENT,
    CLIENTS,
    FIRST,
    OTHER,
    OTHERS,
    SECOND,
    Pair,
    context_of,
    der,
    looked_at_always,
    place,
)
from grpc import aio
from structlog.testing import capture_logs

from close_api.auth.tls import Certificates

DEADLINE_S: Final = 10.0


async def echo(request: bytes, _: object) -> bytes:
    return request


@asynccontextmanager
async def grpc_door(certificates: Certificates) -> AsyncIterator[int]:
    server = aio.server()
    handlers: Any = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_secure_port("127.0.0.1:0", certificates.grpc_credentials())
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def channel(port: int, client: Pair | None) -> aio.Channel:
    """Over a connection of its own."""
    pair = (None, None) if client is None else (client.key, client.certificate)
    options = (("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1))
    return aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(CA.pem, *pair), options)


async def echoed(over: aio.Channel) -> bool:
    call: Any = over.unary_unary("/test/Echo")
    try:
        return bool(await call(b"hello", timeout=DEADLINE_S) == b"hello")
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


async def served_by_grpc(port: int, directory: Path, client: Pair | None = None) -> bytes:
    context = context_of(client, directory)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def test_grpc_serves_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    certificates = looked_at_always(place(tmp_path, FIRST))
    async with grpc_door(certificates) as port, channel(port, None) as old:
        assert await echoed(old)
        assert await served_by_grpc(port, tmp_path) == der(FIRST)
        files = place(tmp_path, SECOND)
        assert await served_by_grpc(port, tmp_path) == der(SECOND)
        assert await echoed(old)
        async with channel(port, None) as new:
            assert await echoed(new)
        files.key.write_bytes(FIRST.key)
        with capture_logs() as logs:
            assert await served_by_grpc(port, tmp_path) == der(SECOND)
            assert await served_by_grpc(port, tmp_path) == der(SECOND)
        assert [one["event"] for one in logs if one["log_level"] == "error"] == ["tls_certificate_not_replaced"]


async def test_grpc_lets_in_whom_the_authorities_of_now_vouch_for(tmp_path: Path) -> None:
    async with grpc_door(looked_at_always(place(tmp_path, FIRST, client_ca=CLIENTS.pem))) as port:
        for client, let_in in ((None, False), (OTHER, False), (CLIENT, True)):
            async with channel(port, client) as over:
                assert await echoed(over) == let_in
        place(tmp_path, SECOND, client_ca=OTHERS.pem)
        for client, let_in in ((None, False), (CLIENT, False), (OTHER, True)):
            async with channel(port, client) as over:
                assert await echoed(over) == let_in
