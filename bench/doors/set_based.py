"""The SQL of accepting without a service: what close-api sends for a batch, recorded, and sent again by pgbench.

A batch of closes is accepted once by close-api's own `accept_batch` on a database of its own, while every statement is
written down with its parameters. Those of each batch then lie in a table of the database that is measured, whose
positions have the same ids and are still open: a pgbench transaction fetches them (the one thing it does more) and runs
the same statements in the same order, prepared, with the session's settings, the writes in one pipeline. So this is
what the database can do when nobody reads, decides, checks or answers anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import uvloop
from psycopg import pq, sql
from sqlalchemy import event, text

from bench.accepting import ACCOUNT
from close_api.accept import accept_batch
from close_api.auth.caller import Caller, Scope
from close_api.close_body import EMPTY, close_command
from closeflow.domain.close.accept import Accepted
from closeflow.storage.core.engine import make_engine, transaction

SIZE: Final = 100
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
_TPS: Final = re.compile(r"^tps = ([0-9.]+) ", re.MULTILINE)
_DONE: Final = re.compile(r"^number of transactions actually processed: ([0-9]+)", re.MULTILINE)
_TRACEPARENT: Final = f"00-{'1' * 32}-{'2' * 16}-01"
_SESSION: Final = """
    SELECT name, setting || COALESCE(unit, '') FROM pg_settings
    WHERE source = 'client' AND name NOT IN ('application_name', 'client_encoding')
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as psycopg got it, and whether it was sent without waiting for its answer."""

    sql: str
    parameters: Mapping[str, object]
    pipelined: bool


@dataclass(slots=True)
class Recording:
    """The statements of one batch, the parameters of every batch as texts, in the statements' order, and the settings
    of the session."""

    statements: list[Statement] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    session: dict[str, str] = field(default_factory=dict)


def record(dsn: str, first: int, batches: int) -> Recording:
    """Accept so many batches of SIZE positions from `first` on, on a database that nobody measures."""
    return uvloop.run(_record(dsn, first, batches))


async def _record(dsn: str, first: int, batches: int) -> Recording:
    sent: list[Statement] = []

    class Cursor(psycopg.AsyncCursor[Any]):
        async def execute(self, query: Any, params: Any = None, **named: Any) -> Any:
            pipelined = self.connection.pgconn.pipeline_status != pq.PipelineStatus.OFF
            said = query.decode() if isinstance(query, bytes) else str(query)
            sent.append(Statement(said, dict(params or {}), pipelined))
            return await super().execute(query, params, **named)

    engine = make_engine(dsn, pool_size=1, application_name="bench-doors", lock_timeout_ms=1000, by_index=True)

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: object) -> None:
        connection.driver_connection.cursor_factory = Cursor

    found = Recording()
    caller = Caller("bench", frozenset({ACCOUNT}), frozenset(Scope))
    try:
        async with transaction(engine) as tx:
            rows = await tx.execute(text(_SESSION))
            found.session = {str(name): str(setting) for name, setting in rows}
        for start in range(first, first + batches * SIZE, SIZE):
            commands = [
                close_command(caller, position_id=one, key=f"bench-{one}", body=EMPTY, traceparent=_TRACEPARENT)
                for one in range(start, start + SIZE)
            ]
            sent.clear()
            outcomes = await accept_batch(engine, commands, deadline_s=30)
            if not all(isinstance(one, Accepted) for one in outcomes):
                raise SystemExit(f"a batch was not accepted while it was recorded: {outcomes[0]}")
            if found.statements and [one.sql for one in found.statements] != [one.sql for one in sent]:
                raise SystemExit("two batches of closes sent other statements; what is measured would be neither")
            found.statements = list(sent)
            found.batches.append([_text(value) for one in sent for value in one.parameters.values()])
    finally:
        await engine.dispose()
    return found


def _text(value: object) -> str:
    """A parameter as PostgreSQL reads it from a text."""
    if isinstance(value, list):
        return "{" + ",".join(f'"{one}"' for one in value) + "}"
    return str(value)


def store(dsn: str, recording: Recording) -> None:
    """Put the parameters where a transaction finds those of its batch by number, from 1 on."""
    names = sql.SQL(", ").join(map(sql.Identifier, _names(recording)))
    texts = sql.SQL(", ").join(
        sql.SQL("{} text STORAGE external").format(sql.Identifier(one)) for one in _names(recording)
    )
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute("DROP TABLE IF EXISTS bench_batches")
        database.execute(sql.SQL("CREATE UNLOGGED TABLE bench_batches (n int PRIMARY KEY, {})").format(texts))
        copying = sql.SQL("COPY bench_batches (n, {}) FROM STDIN").format(names)
        with database.cursor() as cursor, cursor.copy(copying) as copy:
            for number, batch in enumerate(recording.batches, 1):
                copy.write_row((number, *batch))
        database.execute("VACUUM ANALYZE bench_batches")
        database.execute("CHECKPOINT")


def _names(recording: Recording) -> list[str]:
    return [f"s{place}_{name}" for place, one in enumerate(recording.statements) for name in one.parameters]


def script(recording: Recording) -> str:
    """One batch as a pgbench script. `offset` and `share` are variables: a client begins behind the shares of those
    before it."""
    lines = [
        r"\set n :n + 1",
        r"\set batch :offset + :client_id * :share + :n",
        f"SELECT {', '.join(_names(recording))} FROM bench_batches WHERE n = :batch \\gset",  # noqa: S608 (names of ours)
        "BEGIN;",
    ]
    pipelined = False
    for place, one in enumerate(recording.statements):
        if one.pipelined != pipelined:
            lines.append(r"\startpipeline" if one.pipelined else r"\endpipeline")
            pipelined = one.pipelined
        said = _PARAMETER.sub(rf":s{place}_\1", " ".join(one.sql.split())).replace("%%", "%")
        lines.append(f"{said};")
    if pipelined:
        lines.append(r"\endpipeline")
    return "\n".join([*lines, "COMMIT;", ""])


def find_pgbench() -> str | None:
    """The program: the PATH's, or the newest of Debian's packages; the embedded servers come without it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)
    return next((one for one in (shutil.which("pgbench"), *map(str, debian)) if one), None)


@dataclass(slots=True)
class SetBased:
    """Batches that nobody has accepted yet in the database that is measured, `turn` of them to be sent at a time."""

    program: str
    dsn: str
    recording: Recording
    turn: int
    clients: int
    _used: int = 0

    def run(self) -> dict[str, float]:
        """Accept the next `turn` batches; the figures are named as those of `bench.accept.load`. Exits where pgbench
        fails."""
        share = self.turn // self.clients
        cpu_s = _children_s()
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script(self.recording))
            file.flush()
            command = [self.program, "-n", "-M", "prepared", "-f", file.name]
            command += ["-c", str(self.clients), "-j", "1", "-t", str(share)]
            command += ["-D", "n=0", "-D", f"offset={self._used}", "-D", f"share={share}"]
            environment = _environment(self.dsn, self.recording)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        counted, rate = _DONE.search(done.stdout), _TPS.search(done.stdout)
        if done.returncode or counted is None or rate is None or int(counted[1]) != share * self.clients:
            raise SystemExit(f"pgbench failed: {done.stderr.strip() or done.stdout.strip()}")
        self._used += self.turn
        closes, per_second = share * self.clients * SIZE, float(rate[1]) * SIZE
        return {"per_second": per_second, "seconds": closes / per_second, "cpu_s": _children_s() - cpu_s}


def _environment(dsn: str, recording: Recording) -> dict[str, str]:
    server = urlsplit(dsn)
    return {
        **os.environ,
        "PGHOST": server.hostname or "",
        "PGPORT": str(server.port or 5432),
        "PGUSER": server.username or "",
        "PGPASSWORD": server.password or "",
        "PGDATABASE": server.path.removeprefix("/"),
        "PGOPTIONS": " ".join(f"-c {name}={setting}" for name, setting in recording.session.items()),
    }


def _children_s() -> float:
    found = os.times()
    return found.children_user + found.children_system
