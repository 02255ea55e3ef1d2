"""The ways to have closes accepted that are compared, each under the load that suits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.accepting import (
    ACCOUNT,
    REST_LOAD,
    Service,
    all_accepted,
    close_api,
    free_port,
    loaded,
    orm_baseline,
    running,
    start_load,
)
from bench.cpu import cpu_seconds
from bench.doors.issuer import Issuer
from bench.doors.set_based import SIZE, SetBased

GRPC_LOAD: Final = Path(__file__).parent / "grpc_load.py"
SERVICE: Final = "service"
POSTGRES: Final = "PostgreSQL"
LOAD: Final = "load"
PROCESSES: Final = (SERVICE, POSTGRES, LOAD)
WARM_UP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One turn of a way. Latencies are of a call, whatever it carries, in milliseconds; `cpu_us` is by process and per
    close."""

    per_second: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: Mapping[str, float]


@dataclass(slots=True)
class Ground:
    """Where the ways are measured, and what they share: the open positions from `next_position` to `last_position`."""

    dsn: str
    postmaster: int | None
    issuer: Issuer
    last_position: int
    clients: int
    seconds: float
    next_position: int = 1

    def api(self) -> Service:
        """close-api with its doors open to the issuer's tokens, and everything else as it is by default."""
        settings = {**self.issuer.settings, "CLOSE_API_GRPC_PORT": str(free_port())}
        return close_api(self.dsn, settings)

    def cpu_s(self, service: int | None) -> dict[str, float]:
        """What the processes that are not the load have used so far."""
        named = {SERVICE: service, POSTGRES: self.postmaster}
        return cpu_seconds({name: pid for name, pid in named.items() if pid is not None})


def orm(ground: Ground) -> Figures:
    """REST one by one, on FastAPI with an ORM session for each request."""
    service = orm_baseline(ground.dsn)
    return _served(ground, service, REST_LOAD, service.port, ground.clients)


def rest(ground: Ground) -> Figures:
    """REST one by one."""
    service = ground.api()
    return _served(ground, service, REST_LOAD, service.port, ground.clients)


def rest_batch(ground: Ground) -> Figures:
    """:batchClose of SIZE, with as many closes on their way as eight callers have."""
    service = ground.api()
    return _served(ground, service, REST_LOAD, service.port, _callers(ground), options=("--size", SIZE))


def grpc_unary(ground: Ground) -> Figures:
    """ClosePosition."""
    service = ground.api()
    port = service.environment["CLOSE_API_GRPC_PORT"]
    return _served(ground, service, GRPC_LOAD, port, "unary", ground.clients)


def grpc_stream(ground: Ground) -> Figures:
    """ClosePositions with SIZE closes a message, and as many of these on their way as :batchClose has."""
    service = ground.api()
    port = service.environment["CLOSE_API_GRPC_PORT"]
    options = ("--size", SIZE, "--window", 2)
    return _served(ground, service, GRPC_LOAD, port, "stream", _callers(ground) // 2, options=options)


def _callers(ground: Ground) -> int:
    return max(2, ground.clients // 8)


def _served(ground: Ground, service: Service, program: Path, *how: object, options: Sequence[object] = ()) -> Figures:
    """One turn of a service under this load, which is a process of its own, after a shorter one that is not counted."""
    token = ground.issuer.token("bench", [ACCOUNT])
    found: dict[str, Any] = {}
    before: dict[str, float] = {}
    with running(service) as pid:
        for seconds in (WARM_UP_S, ground.seconds):
            before = ground.cpu_s(pid)
            spent = (*how, seconds, ground.next_position, ground.last_position, *options)
            found = all_accepted(loaded(start_load(program, *spent, token=token)))
            ground.next_position += found["used"]
        after = ground.cpu_s(pid)
    return _figures(found, before, after)


def pgbench(ground: Ground, set_based: SetBased) -> Figures:
    """What close-api sends for a batch of SIZE, without close-api."""
    before = ground.cpu_s(None)
    found = set_based.run()
    return _figures(found, before, ground.cpu_s(None))


def _figures(found: Mapping[str, Any], before: Mapping[str, float], after: Mapping[str, float]) -> Figures:
    closes = found["per_second"] * found["seconds"]
    used = {name: after[name] - before[name] for name in after} | {LOAD: found["cpu_s"]}
    return Figures(
        per_second=found["per_second"],
        p50_ms=found.get("p50_ms"),
        p99_ms=found.get("p99_ms"),
        cpu_us={name: 1e6 * seconds / closes for name, seconds in used.items()},
    )
