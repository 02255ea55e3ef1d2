"""What the benches of accepting share: a database of open positions, services as processes, and the load on them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from closeflow.storage.schema.migrate import upgrade

ACCOUNT: Final = "BENCH"
TOKEN_VARIABLE: Final = "BENCH_TOKEN"
"""Where a load finds its bearer token; without it none is sent."""
BASELINE: Final = Path(__file__).parent / "accept" / "baseline.py"
REST_LOAD: Final = Path(__file__).parent / "accept" / "load.py"
_START_WITHIN_S: Final = 20.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fresh_database(admin_dsn: str, name: str, positions: Mapping[str, int]) -> str:
    """A migrated database with so many open stock positions of each account, the ids 1, 2, ... in this order; dropped
    first if a run before left it."""
    drop_database(admin_dsn, name)
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    dsn = urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{name}"))
    upgrade(dsn)
    first = 1
    with psycopg.connect(dsn, autocommit=True) as database:
        for account, count in positions.items():
            database.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, 'none')", (account,))
            database.execute(
                "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity)"
                " SELECT n, %s, 'S' || n, 'stock', 10, 10 FROM generate_series(%s::bigint, %s::bigint) n",
                (account, first, first + count - 1),
            )
            first += count
        database.execute("VACUUM ANALYZE positions")
        database.execute("CHECKPOINT")
    return dsn


def drop_database(admin_dsn: str, name: str) -> None:
    """Drop it, whoever is connected; nothing to do is no error."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@dataclass(frozen=True, slots=True)
class Service:
    """A program that answers HTTP on `port`, and the settings that it gets."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    port: int


def close_api(dsn: str, environment: Mapping[str, str]) -> Service:
    """close-api on a port of its own, with these settings beside the database's."""
    port = free_port()
    settings = {"CLOSE_API_POSTGRES_DSN": dsn, "CLOSE_API_HTTP_PORT": str(port), **environment}
    return Service(["-m", "close_api"], settings, port)


def orm_baseline(dsn: str) -> Service:
    """`bench.accept.baseline` on a port of its own."""
    port = free_port()
    settings = {"BASELINE_DSN": dsn.replace("postgresql://", "postgresql+psycopg://", 1)}
    return Service([str(BASELINE), str(port)], settings, port)


@contextmanager
def running(service: Service) -> Iterator[int]:
    """The service as a process, which is ended afterwards; gives its id once it answers. Exits where it does not within
    20 s."""
    process = subprocess.Popen([sys.executable, *service.arguments], env={**os.environ, **service.environment})
    try:
        deadline = time.monotonic() + _START_WITHIN_S
        while not answers(service.port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(service.arguments)} did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int) -> bool:
    """Whether an HTTP server is there, whatever it says of its health."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def start_load(program: Path, *arguments: object, token: str | None = None) -> subprocess.Popen[str]:
    """A load generator as a process of its own; `loaded` waits for what it has measured."""
    environment = dict(os.environ) if token is None else {**os.environ, TOKEN_VARIABLE: token}
    return subprocess.Popen(
        [sys.executable, str(program), *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


def loaded(load: subprocess.Popen[str]) -> dict[str, Any]:
    """What the load measured; exits where it failed."""
    output, _ = load.communicate()
    if load.returncode:
        raise SystemExit("the load generator failed; its error is above")
    found: dict[str, Any] = json.loads(output)
    return found


def all_accepted(found: dict[str, Any]) -> dict[str, Any]:
    """The same; exits unless every close was accepted and there were positions enough."""
    if set(found["statuses"]) != {"201"} or found["exhausted"]:
        raise SystemExit(f"not every close was accepted: {found}")
    return found


def postmaster(admin_dsn: str) -> int | None:
    """The process id of PostgreSQL, whose children work for us; None where it runs on another machine."""
    with psycopg.connect(admin_dsn) as database:
        try:
            stat = Path(f"/proc/{database.info.backend_pid}/stat").read_text()
        except OSError:
            return None
    return int(stat.rpartition(")")[2].split()[1]) if "(postgres)" in stat else None
