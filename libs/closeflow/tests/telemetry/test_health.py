"""The health endpoint, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from closeflow.telemetry import serve_health
from closeflow.telemetry.metrics import KAFKA_PUBLISHED


async def test_liveness_readiness_and_metrics_are_served() -> None:
    missing: dict[str, str | None] = {"postgres": "connection refused", "kafka": None}

    async def readiness() -> Mapping[str, str | None]:
        return missing

    KAFKA_PUBLISHED.labels("broker-fill").inc()
    async with (
        serve_health("127.0.0.1", 0, readiness) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        unready = await client.get("/readyz")
        assert (unready.status_code, unready.json()["missing"]) == (503, {"postgres": "connection refused"})
        missing["postgres"] = None
        assert (await client.get("/readyz")).status_code == 200
        metrics = await client.get("/metrics")
        assert 'closeflow_kafka_published_total{topic="broker-fill"}' in metrics.text
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post("/healthz")).status_code == 405


async def test_a_service_without_needs_is_ready() -> None:
    async with serve_health("127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/readyz?verbose=1")).json() == {"status": "ready"}


async def test_head_is_answered_as_get_without_the_body() -> None:
    async def unready() -> Mapping[str, str | None]:
        return {"postgres": "connection refused"}

    async with (
        serve_health("127.0.0.1", 0, unready) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for path in ("/healthz", "/readyz", "/metrics", "/nothing"):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
        assert (await client.head("/readyz")).headers["content-length"] == (await client.get("/readyz")).headers[
            "content-length"
        ]


async def test_a_look_that_hangs_or_fails_is_unready_and_is_not_begun_twice() -> None:
    looks = 0
    thawed = asyncio.Event()

    async def frozen() -> Mapping[str, str | None]:
        nonlocal looks
        looks += 1
        await thawed.wait()
        raise RuntimeError("no")

    async with (
        serve_health("127.0.0.1", 0, frozen) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(3)))
        assert [(one.status_code, "has not answered" in one.text) for one in answers] == [(503, True)] * 3
        assert looks == 1
        thawed.set()
        assert (await client.get("/readyz")).json()["missing"] == {"readiness": "RuntimeError: no"}


async def test_an_endless_request_is_cut_off_and_the_next_one_is_answered() -> None:
    async with serve_health("127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert await reader.read() == b""
        writer.close()
        assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
