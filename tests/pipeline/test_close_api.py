"""close-api as processes on a real PostgreSQL: one close per position, whatever fails in between."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest

from demo.services import Service, ServiceSpec, free_port

if TYPE_CHECKING:
    from tests.conftest import Database

ROLE: Final = "closeflow_close_api"
DEADLINE_MS: Final = 4000


@dataclass
class Desk:
    """A database with positions, and the processes that accept closes of them."""

    database: Database
    directory: Path
    services: list[Service] = field(default_factory=list)

    @contextmanager
    def api(self, dsn: str | None = None, **settings: str) -> Iterator[str]:
        """One more close-api under its own role; gives its URL."""
        port = free_port()
        environment = {
            "POSTGRES_DSN": dsn or self.database.dsn(ROLE),
            "AUTH": "disabled",
            "HTTP_PORT": str(port),
            "GRPC_PORT": "0",
            "REQUEST_DEADLINE_MS": str(DEADLINE_MS),
            "REPLICATION_SLOT": self.slot,
        } | settings
        spec = ServiceSpec(
            name=f"close-api-{port}",
            module="close_api",
            environment={f"CLOSE_API_{name}": value for name, value in environment.items()},
            ready_url=f"http://127.0.0.1:{port}/healthz",
        )
        service = Service(spec, directory=self.directory)
        self.services.append(service)
        try:
            service.await_ready()
            yield f"http://127.0.0.1:{port}"
        finally:
            service.stop()

    @property
    def slot(self) -> str:
        return f"closeflow_{self.database.name}"

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """As the owner of the database; the rows, if there are any."""
        with psycopg.connect(self.database.admin_dsn, autocommit=True) as owner:
            cursor = owner.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def open_positions(self, count: int, quantity: str = "10", asset_type: str = "stock") -> list[int]:
        self.run("INSERT INTO accounts (account_id, broker) VALUES ('ACC', 'sim') ON CONFLICT DO NOTHING")
        found = self.run(
            "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity)"
            " SELECT 'ACC', 'S' || gen_random_uuid(), %s, %s, %s FROM generate_series(1, %s) RETURNING id",
            asset_type,
            Decimal(quantity),
            Decimal(quantity),
            count,
        )
        return [int(one) for (one,) in found]

    def accepted(self) -> int:
        """Close requests, each proven to have its position and both events of the same transaction."""
        rows = self.run(
            "SELECT r.id, p.active_close_request_id, p.status,"
            " (SELECT array_agg(e.event_type ORDER BY e.topic DESC) FROM outbox_events e"
            "  WHERE e.close_request_id = r.id AND e.xact_id = r.xact_id AND e.traceparent = r.traceparent)"
            " FROM close_requests r JOIN positions p ON p.id = r.position_id"
        )
        for request_id, active, status, events in rows:
            assert (active, status) == (request_id, "closing")
            assert events == ["SUBMIT_CLOSE_ORDER", "POSITION_CLOSING"]
        assert self.run("SELECT count(*) FROM outbox_events") == [(2 * len(rows),)]
        return len(rows)


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Desk:
    return Desk(database, tmp_path)


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits) as made:
        yield made


async def close(api: httpx.AsyncClient, position_id: int, key: str = "k", body: str = "") -> httpx.Response:
    return await api.post(f"/v1/positions/{position_id}/close", headers={"Idempotency-Key": key}, content=body)


async def test_fifty_closes_of_one_position_over_two_processes_accept_one(desk: Desk) -> None:
    position, *others = desk.open_positions(21)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = desk.run(deadlocks)
    with desk.api() as one, desk.api() as two:
        async with client(one) as first, client(two) as second:
            calls = [close((first, second)[n % 2], position, f"key-{n}") for n in range(50)]
            # The other positions in opposite orders, so that two batches would lock them against each other.
            calls += [close(first, other, "mine") for other in others]
            calls += [close(second, other, "mine") for other in reversed(others)]
            answers = await asyncio.gather(*calls)
            contested, shared = answers[:50], answers[50:]
            assert Counter(answer.status_code for answer in contested) == {201: 1, 409: 49}
            assert Counter(answer.status_code for answer in shared) == {201: 20, 200: 20}
            won = next(answer for answer in contested if answer.status_code == 201).json()
            active = {one.json()["active_close_request_id"] for one in contested if one.status_code == 409}
            assert active == {won["close_request_id"]}
            replayed = [await close(api, position, f"key-{_key_of(contested)}") for api in (first, second)]
            assert [answer.status_code for answer in replayed] == [200, 200]
    assert desk.accepted() == 21
    assert desk.run(deadlocks) == before


def _key_of(answers: list[httpx.Response]) -> int:
    return next(n for n, answer in enumerate(answers) if answer.status_code == 201)


async def test_a_close_can_be_followed_and_its_position_seen(desk: Desk) -> None:
    [position] = desk.open_positions(1, "-2.500000001", "crypto")
    with desk.api() as url:
        async with client(url) as api:
            made = await close(api, position, body='{"quantity": 0.100000001, "limit_price": 25000.10}')
            shown = await api.get(made.headers["location"])
            seen = await api.get(f"/v1/positions/{position}")
            again = await close(api, position, body='{"limit_price": 2500010e-2, "quantity": 1.00000001e-1}')
            other = await close(api, position, body='{"quantity": 0.2}')
    assert shown.content == made.content
    assert '"side":"buy","target_qty":0.100000001' in made.text
    assert '"quantity":-2.500000001' in seen.text
    assert (seen.json()["version"], seen.json()["active_close_request_id"]) == (2, made.json()["close_request_id"])
    assert (again.status_code, other.status_code) == (200, 422)
    assert other.json()["code"] == "idempotency_key_reused"
    history = desk.run("SELECT entity, from_status, to_status FROM status_history WHERE from_status IS NOT NULL")
    assert history == [("position", "open", "closing")]


async def test_a_close_is_refused_while_an_earlier_one_of_the_position_is_frozen(desk: Desk) -> None:
    [position] = desk.open_positions(1)
    with desk.api() as url:
        async with client(url) as api:
            first = (await close(api, position)).json()["close_request_id"]
            ended = "UPDATE positions SET status = 'open', active_close_request_id = NULL WHERE id = %s"
            desk.run("UPDATE close_requests SET status = 'failed', frozen_reason = 'poison' WHERE id = %s", first)
            desk.run(ended, position)
            refused = await close(api, position, key="second")
            assert (refused.status_code, refused.json()["code"]) == (409, "exposure_unproven")
            desk.run("UPDATE close_requests SET frozen_reason = NULL WHERE id = %s", first)
            assert (await close(api, position, key="third")).status_code == 201


async def test_what_never_was_and_what_is_over_are_told_apart(desk: Desk) -> None:
    closed, zero, stock, option = *desk.open_positions(3), *desk.open_positions(1, "4", "option")
    desk.run("UPDATE positions SET quantity = 0, status = 'closed', closed_at = now() WHERE id = %s", closed)
    desk.run("UPDATE positions SET quantity = 0 WHERE id = %s", zero)
    with desk.api() as url:
        async with client(url) as api:
            codes = [(await close(api, one)).status_code for one in (closed, zero, 2**63 - 1)]
            options = [
                (await api.post(f"/api/options/{one}/close", headers={"Idempotency-Key": "k"})).status_code
                for one in (stock, option)
            ]
            unknown = await api.get("/v1/close-requests/01a20503-b516-7095-8fe7-07f508d10a1b")
    assert codes == [409, 400, 404]
    assert options == [404, 201]
    assert unknown.status_code == 404
    assert desk.accepted() == 1


async def test_bad_input_is_refused_in_bounded_time_and_leaves_no_row(desk: Desk) -> None:
    [position] = desk.open_positions(1)
    with desk.api(REQUEST_DEADLINE_MS="1000") as url:
        async with client(url) as api:
            bodies = ["null", "[" * 60_000, '{"a":' * 9_000, '{"quantity":-1}', '{"quantity":NaN}', "x" * 10_000_000]
            started = time.monotonic()
            codes = [(await close(api, position, body=body)).status_code for body in bodies]
            assert codes == [400, 400, 400, 422, 422, 413]
            assert (await _slow_close(url, position)).startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - started < 10
            assert (await api.get("/healthz")).status_code == 200
    assert desk.accepted() == 0


async def _slow_close(url: str, position_id: int) -> bytes:
    """Promise a body and send a part of it; what comes back before the server hangs up."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /v1/positions/{position_id}/close HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 50"
    writer.write(head.encode() + b'\r\n\r\n{"quan')
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_row_that_the_database_refuses_fails_alone(desk: Desk) -> None:
    positions = desk.open_positions(20)
    desk.run(f"ALTER TABLE close_requests ADD CONSTRAINT poison CHECK (position_id <> {positions[7]})")
    with desk.api() as url:
        async with client(url) as api:
            answers = await asyncio.gather(*(close(api, one) for one in positions))
    assert [n for n, answer in enumerate(answers) if answer.status_code != 201] == [7]
    assert answers[7].status_code == 503
    incidents = desk.run("SELECT kind, position_id FROM incidents WHERE closed_at IS NULL")
    assert incidents == [("close_refused_by_database", positions[7])]
    assert desk.accepted() == 19


async def test_a_position_that_somebody_holds_does_not_hold_up_the_others(desk: Desk) -> None:
    positions = desk.open_positions(20)
    with desk.api(REQUEST_DEADLINE_MS="20000") as url, psycopg.connect(desk.database.admin_dsn) as holder:
        holder.execute("SELECT FROM positions WHERE id = %s FOR UPDATE", (positions[3],))
        async with client(url) as api:
            storm = asyncio.gather(*(close(api, positions[3], key=f"again-{n}") for n in range(10)))
            answers = await asyncio.gather(*(close(api, one) for one in positions))
            assert {answer.status_code for answer in await storm} == {503}
            holder.rollback()
            again = await close(api, positions[3])
    assert [n for n, answer in enumerate(answers) if answer.status_code != 201] == [3]
    assert (answers[3].json()["code"], again.status_code) == ("unavailable", 201)
    assert desk.accepted() == 20


async def test_connections_that_died_in_the_pool_are_replaced(desk: Desk) -> None:
    before, after = desk.open_positions(2)
    with desk.api() as url:
        async with client(url) as api:
            assert (await close(api, before)).status_code == 201
            ended = desk.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'close-api'"
            )
            assert ended
            assert (await close(api, after)).status_code == 201
    assert desk.accepted() == 2


class Cut(Enum):
    """What becomes of the line when a COMMIT passes: cut before the server hears it, cut before the client hears the
    answer, or open with nothing carried any more."""

    NOWHERE = auto()
    BEFORE_COMMIT = auto()
    AFTER_COMMIT = auto()
    SILENT = auto()


@dataclass
class Line:
    """The way to PostgreSQL, which can be cut once, when a close is committed: not when the heartbeat is."""

    host: str
    port: int
    cut: Cut = Cut.NOWHERE
    cuts: int = 0

    async def carry(self, from_api: asyncio.StreamReader, to_api: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(self.host, self.port)
        back = asyncio.create_task(_pump(from_server, to_api))
        closing = False
        try:
            while data := await from_api.read(65536):
                closing = closing or b"close_requests" in data
                if closing and b"COMMIT" in data and self.cut is not Cut.NOWHERE:
                    back.cancel()
                    with suppress(asyncio.CancelledError):
                        await back
                    how, self.cut = self.cut, Cut.NOWHERE
                    self.cuts += 1
                    if how is Cut.AFTER_COMMIT:
                        to_server.write(data)
                        await from_server.read(65536)
                    if how is Cut.SILENT:
                        await from_api.read()
                    return
                to_server.write(data)
                await to_server.drain()
        except ConnectionError:
            pass
        finally:
            back.cancel()
            to_server.close()
            to_api.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def cuttable(dsn: str) -> AsyncIterator[tuple[Line, str]]:
    """A line to the database of `dsn`, and the DSN that goes over it."""
    parts = urlsplit(dsn)
    line = Line(str(parts.hostname), int(parts.port or 5432))
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login = parts.netloc.rpartition("@")[0]
    try:
        yield line, urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
    finally:
        server.close()


async def test_a_commit_whose_answer_is_lost_is_read_back(desk: Desk) -> None:
    positions = desk.open_positions(3)
    async with cuttable(desk.database.dsn(ROLE)) as (line, dsn):
        with desk.api(dsn) as url:
            async with client(url) as api:
                assert (await close(api, positions[0])).status_code == 201
                line.cut = Cut.AFTER_COMMIT
                kept = await close(api, positions[1])
                line.cut = Cut.BEFORE_COMMIT
                lost = await close(api, positions[2])
                assert (kept.status_code, lost.status_code, line.cuts) == (201, 503, 2)
                assert lost.json()["code"] == "unavailable"
                assert desk.accepted() == 2
                again = [await close(api, one) for one in positions]
    assert [answer.status_code for answer in again] == [200, 200, 201]
    assert again[1].json()["close_request_id"] == kept.json()["close_request_id"]
    assert desk.accepted() == 3


async def test_a_database_that_falls_silent_costs_one_answer_and_no_second_request(desk: Desk) -> None:
    positions = desk.open_positions(2)
    async with cuttable(desk.database.dsn(ROLE)) as (line, dsn):
        with desk.api(dsn, REQUEST_DEADLINE_MS="1000") as url:
            async with client(url) as api:
                line.cut = Cut.SILENT
                started = time.monotonic()
                unheard = await close(api, positions[0])
                assert (unheard.status_code, line.cuts) == (503, 1)
                assert time.monotonic() - started < 3
                repeated = 0
                while (answer := await close(api, positions[0])).status_code == 503:
                    repeated += 1
                    assert repeated < 30, "the transaction that fell silent still holds the position"
                other = await close(api, positions[1])
    # A repetition that got its 503 by the deadline may have been accepted a moment later; then this one is its replay.
    assert answer.status_code == (200 if answer.headers.get("idempotency-replayed") else 201)
    assert other.status_code == 201
    assert desk.accepted() == 2


async def test_a_stop_in_the_middle_answers_what_was_accepted(desk: Desk) -> None:
    positions = desk.open_positions(300)
    with desk.api() as url:
        async with client(url) as api:
            calls = [asyncio.create_task(close(api, one)) for one in positions]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            desk.services[0].process.terminate()
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert await asyncio.to_thread(desk.services[0].process.wait, 20) == 0
    answered = [answer for answer in answers if isinstance(answer, httpx.Response)]
    assert all(isinstance(answer, httpx.HTTPError) for answer in answers if answer not in answered)
    assert {answer.status_code for answer in answered} == {201}
    assert desk.accepted() == len(answered)


async def test_readiness_follows_the_slot_and_the_schema(desk: Desk) -> None:
    with desk.api() as url:
        async with client(url) as api:
            missing = await api.get("/readyz")
            desk.run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", desk.slot)
            try:
                idle = await api.get("/readyz")
                desk.run("UPDATE alembic_version SET version_num = '0001'")
                behind = await api.get("/readyz")
            finally:
                desk.run("SELECT pg_drop_replication_slot(%s)", desk.slot)
    assert [one.status_code for one in (missing, idle, behind)] == [503, 200, 503]
    assert [one.json()["status"] for one in (missing, idle, behind)] == ["unready", "degraded", "unready"]
