"""The server around the calls: health, reflection, limits, TLS, and how it stops."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from close_api.grpc.health import WATCHERS
from close_api.grpc.server import Limits, PortTaken, make_grpc_server
from close_api.readiness import Readiness
from closeflow_client.generated import close_pb2 as pb
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub

from .grpc_serving import ACC, Served, failing, serving, until, waiting_closes
from .raw_http2 import GOAWAY, PREFACE, SETTINGS, connected, frame

CLOSE: Final = pb.ClosePositionRequest(close=pb.Close(position_id=7, idempotency_key="k"))
SERVICE: Final = "closeflow.close.v1.CloseService"
Health = health_pb2.HealthCheckResponse


async def test_health_says_what_readiness_says() -> None:
    async with serving() as served, served.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            found = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert found.status == Health.SERVING
        watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        told = [(await watching.read()).status]
        for state in ("degraded", "unready", "ready"):
            served.readiness.append(Readiness(state))
            if state != "degraded":
                told.append((await watching.read()).status)
        watching.cancel()
    assert told == [Health.SERVING, Health.NOT_SERVING, Health.SERVING]


async def test_health_of_another_service_is_not_known() -> None:
    async with serving() as served, served.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.Check(health_pb2.HealthCheckRequest(service="another"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_garbage_asks_nothing_of_health(method: str) -> None:
    async with serving() as served, served.channel() as channel:
        path = f"/grpc.health.v1.Health/{method}"
        ask: Any = channel.unary_unary(path) if method == "Check" else channel.unary_stream(path)
        refused = await failing(ask(b"\xff\xff\xff", timeout=5.0))
    assert refused.reason == "MALFORMED_BODY"


async def ending(watching: Any) -> grpc.StatusCode:
    """How a watch ends, after what else it says."""
    with suppress(grpc.aio.AioRpcError):
        while await watching.read() is not grpc.aio.EOF:
            pass
    code: grpc.StatusCode = await watching.code()
    return code


async def test_who_watches_health_is_told_of_a_stop_and_does_not_delay_it() -> None:
    with capture_logs() as logs:
        async with serving(grace_s=30.0) as served, served.channel() as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watching = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
            assert {(await one.read()).status for one in watching} == {Health.SERVING}
            served.made.doors.stopping.set()
            async with asyncio.timeout(5.0):
                assert {await ending(one) for one in watching} == {grpc.StatusCode.UNAVAILABLE}
                await served.ended
    assert [one for one in logs if one["log_level"] == "error"] == []


async def test_watchers_of_health_leave_room_for_closes() -> None:
    """Nobody needs a token to watch."""
    async with serving() as served, served.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watching = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(WATCHERS)]
        assert {(await one.read()).status for one in watching} == {Health.SERVING}
        one_more = health.Watch(health_pb2.HealthCheckRequest())
        assert await ending(one_more) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == Health.SERVING
        watching.pop().cancel()

        async with asyncio.timeout(5.0):
            while True:
                another = health.Watch(health_pb2.HealthCheckRequest())
                with suppress(grpc.aio.AioRpcError):
                    assert (await another.read()).status == Health.SERVING
                    break
                await asyncio.sleep(0.01)
        for one in (*watching, another):
            one.cancel()


async def services(channel: grpc.aio.Channel) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    return [one.name for one in answer.list_services_response.service]


async def test_reflection_is_there_where_it_is_set() -> None:
    async with serving(reflected=True) as served, served.channel() as channel:
        assert SERVICE in await services(channel)


async def test_reflection_is_off_otherwise() -> None:
    async with serving() as served, served.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await services(channel)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def read(served: Served) -> grpc.StatusCode:
    """How a new call on a new connection ends."""
    async with served.stub() as api:
        code = await api.GetPosition(pb.GetPositionRequest(position_id=7), metadata=ACC).code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return code


async def test_a_call_in_flight_is_answered_when_the_service_stops_and_no_other_is_taken() -> None:
    with capture_logs() as logs:
        async with serving(grace_s=10.0) as served, served.stub() as api:
            served.positions.open.clear()
            first = asyncio.ensure_future(api.ClosePosition(CLOSE, metadata=ACC))
            await served.positions.taken.wait()
            served.made.doors.stopping.set()
            async with asyncio.timeout(5.0):
                while await read(served) is grpc.StatusCode.OK:
                    pass
            assert not served.ended.done()
            served.positions.open.set()
            assert (await first).close_request.position_id == 7
            async with asyncio.timeout(5.0):
                await served.ended
    assert len(served.positions.accepted()) == 1
    assert [one for one in logs if one["log_level"] in ("warning", "error")] == []


async def test_a_call_that_does_not_end_is_cut_at_the_end_of_the_grace() -> None:
    async with serving(grace_s=0.3, deadline_s=30.0) as served, served.stub() as api:
        served.positions.open.clear()
        call = api.ClosePosition(CLOSE, metadata=ACC)
        code = asyncio.ensure_future(call.code())
        await served.positions.taken.wait()
        served.made.doors.stopping.set()
        async with asyncio.timeout(5.0):
            await served.ended
            assert await code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_port_that_is_taken_is_one_clear_line() -> None:
    async with serving() as served:
        with pytest.raises(PortTaken, match="CLOSE_API_GRPC_PORT"):
            make_grpc_server(served.made.doors, host="127.0.0.1", port=served.made.port, limits=Limits())


async def test_more_calls_at_a_time_than_the_limit_are_refused() -> None:
    messages = [pb.ClosePositionRequest(close=pb.Close(position_id=n, idempotency_key="k")) for n in range(1, 6)]
    async with serving(limits=Limits(concurrent_calls=2)) as served, served.stub() as api:
        served.positions.open.clear()
        first = [asyncio.ensure_future(api.ClosePosition(one, metadata=ACC).code()) for one in messages[:2]]
        await until(lambda: waiting_closes() + len(served.positions.asked) == 2)
        codes = [await api.ClosePosition(one, metadata=ACC, timeout=5.0).code() for one in messages[2:]]
        served.positions.open.set()
        assert await asyncio.gather(*first) == [grpc.StatusCode.OK] * 2
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    assert len(served.positions.accepted()) == 2


def calls_kept() -> int:
    """Calls of the library that something still refers to."""
    return sum(type(one).__name__ == "_ServicerContext" for one in gc.get_objects())


async def test_a_call_that_is_over_is_cleared_away_without_the_collector() -> None:
    """It counts as a stream of its connection until then, and close-api collects seldom."""
    bad = pb.GetPositionRequest(position_id=0)
    async with serving() as served, served.stub() as api:
        gc.collect()
        gc.disable()
        try:
            before = calls_kept()
            for n in range(1, 11):
                close = pb.Close(position_id=n, idempotency_key="k")
                await api.ClosePosition(pb.ClosePositionRequest(close=close), metadata=ACC)
                await failing(api.GetPosition(bad, metadata=ACC))
                await failing(api.GetPosition(bad))
                call = api.ClosePositions(metadata=ACC)
                await call.write(pb.ClosePositionsRequest(closes=[close, pb.Close()]))
                await call.read()
                await call.write(pb.ClosePositionsRequest())
                await failing(call)
            await until(lambda: calls_kept() == before)
        finally:
            gc.enable()


async def test_a_caller_may_keep_many_calls_going_on_one_connection() -> None:
    async with serving() as served, served.stub() as api:
        close = pb.ClosePositionRequest(close=pb.Close(position_id=7, idempotency_key="k"))
        for _ in range(5):
            served.positions.open.clear()
            calls = [api.ClosePosition(close, metadata=ACC) for _ in range(300)]
            codes = asyncio.gather(*(call.code() for call in calls))
            await until(lambda: waiting_closes() > 0)
            served.positions.open.set()
            assert set(await codes) == {grpc.StatusCode.OK}


async def test_an_idle_connection_is_ended_and_one_that_is_old_too() -> None:
    for limits in (Limits(connection_idle_s=0.3), Limits(connection_age_s=0.3, connection_grace_s=0.2)):
        async with serving(limits=limits) as served, connected(served.made.port) as raw:
            raw.send(PREFACE, frame(SETTINGS))
            async with asyncio.timeout(10.0):
                kinds = [one.kind async for one in raw.frames()]
        assert GOAWAY in kinds


async def test_more_connections_than_the_limit_are_not_served() -> None:
    async with serving(limits=Limits(connections=1)) as served, connected(served.made.port) as first:
        first.send(PREFACE, frame(SETTINGS))
        assert (await anext(first.frames())).kind == SETTINGS
        async with connected(served.made.port) as second:
            second.send(PREFACE, frame(SETTINGS))
            assert await second.rest(within_s=5.0) == b""


ALERT: Final = b"\x15"
"""The first byte of a TLS record that says what is wrong (RFC 8446 section 5.1)."""


def certificate() -> tuple[bytes, bytes]:
    """A key, and a certificate of 127.0.0.1 signed by itself."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "close-api")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, made.public_bytes(Encoding.PEM)


async def test_with_credentials_only_tls_is_spoken() -> None:
    key, chain = certificate()
    credentials = grpc.ssl_server_credentials([(key, chain)])
    async with serving(credentials=credentials, limits=Limits(handshake_s=2.0)) as served:
        trusted = grpc.ssl_channel_credentials(chain)
        async with grpc.aio.secure_channel(served.address, trusted) as channel:
            api = CloseServiceStub(channel)
            assert (await api.ClosePosition(CLOSE, metadata=ACC)).close_request.position_id == 7
        async with connected(served.made.port) as raw:
            raw.send(PREFACE, frame(SETTINGS))
            assert (await raw.rest(within_s=5.0))[:1] in (b"", ALERT)
