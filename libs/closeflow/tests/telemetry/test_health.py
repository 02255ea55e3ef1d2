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


async def test_an_endless_request_is_cut_off_and_the_next_one_is_answered() -> None:
    async with serve_health("127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert await reader.read() == b""
        writer.close()
        assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
