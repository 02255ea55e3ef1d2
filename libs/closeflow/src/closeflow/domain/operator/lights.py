"""Lights for whoever watches: whether events are on their way, orders may go out, and somebody looks after the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from closeflow.domain.incidents import IncidentKind
from closeflow.domain.outbox.replication_slot import Slot
from closeflow.domain.trading_controls import TradingState


class Colour(StrEnum):
    """Red needs a person or is about to; amber is worth a look."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


class LightName(StrEnum):
    """What a light is about."""

    CONNECTOR = "connector"
    SLOT = "slot"
    LAG = "lag"
    BREAKER = "breaker"
    TRADING = "trading"
    RECONCILER = "reconciler"


@dataclass(frozen=True, slots=True)
class Light:
    """`says` is for people, and empty of anything of one account alone but its name."""

    name: LightName
    colour: Colour
    says: str


@dataclass(frozen=True, slots=True)
class BreakerSeen:
    """The circuit breaker of an account: closed, open or half-open."""

    account: str
    state: str


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job of the reconciler, and how long ago it finished a cycle; None before its first."""

    job: str
    idle: timedelta | None
    allowed: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is seen at one moment by the database's clock. `incidents` are the kinds of all that are open."""

    slot: Slot | None
    heartbeat_age: timedelta | None
    breakers: Collection[BreakerSeen]
    controls: Collection[tuple[str, TradingState]]
    """By scope, `global` or an account."""
    jobs: Collection[JobSeen]
    incidents: Collection[str]


HEARTBEAT_LATE: Final = timedelta(seconds=30)
HEARTBEAT_STALE: Final = timedelta(seconds=60)
LAG_AMBER_BYTES: Final = 64 * 1024**2
LAG_RED_BYTES: Final = 1024**3
_OF_CONNECTOR: Final = (
    IncidentKind.CONNECTOR_TASK_FAILED,
    IncidentKind.CONNECTOR_MISSING,
    IncidentKind.CONNECTOR_STOPPED,
    IncidentKind.CONNECTOR_UNREACHABLE,
    IncidentKind.HEARTBEAT_STALE,
)
_OF_READERS: Final = (IncidentKind.KAFKA_AWAY, IncidentKind.CONSUMER_STALLED, IncidentKind.LOG_TAIL_LOST)


def lights(seen: Surroundings) -> tuple[Light, ...]:
    """Each light once, in the order of their names."""
    return (_connector(seen), _slot(seen), _lag(seen), _breaker(seen), _trading(seen), _reconciler(seen))


def _connector(seen: Surroundings) -> Light:
    name, age = LightName.CONNECTOR, seen.heartbeat_age
    told = _open(seen, _OF_CONNECTOR)
    if age is None:
        return Light(name, Colour.RED, "Debezium has never written a heartbeat")
    if age < HEARTBEAT_LATE and not told:
        return Light(name, Colour.GREEN, "Debezium writes its heartbeat")
    says = f"Debezium's last heartbeat is {age.total_seconds():.0f} s old"
    red = age >= HEARTBEAT_STALE or told
    return Light(name, Colour.RED if red else Colour.AMBER, "; ".join((says, *told)))


def _slot(seen: Surroundings) -> Light:
    name, slot = LightName.SLOT, seen.slot
    if slot is None:
        return Light(name, Colour.RED, "the replication slot is not there: nothing keeps events for the connector")
    if slot.is_lost:
        return Light(name, Colour.RED, "the replication slot's WAL is gone")
    if slot.wal_status == "unreserved":
        return Light(name, Colour.RED, "the replication slot is about to lose its WAL")
    if not slot.active:
        return Light(name, Colour.RED, "nothing reads the replication slot")
    return Light(name, Colour.GREEN, "the replication slot is read")


def _lag(seen: Surroundings) -> Light:
    name = LightName.LAG
    told = _open(seen, _OF_READERS)
    lag = 0 if seen.slot is None else seen.slot.lag_bytes
    if lag < LAG_AMBER_BYTES and not told:
        return Light(name, Colour.GREEN, "events are confirmed, and every consumer reads")
    says = f"{lag / 1024**2:.0f} MiB of WAL are not confirmed"
    red = told or lag >= LAG_RED_BYTES
    return Light(name, Colour.RED if red else Colour.AMBER, "; ".join((says, *told)))


def _breaker(seen: Surroundings) -> Light:
    name = LightName.BREAKER
    not_closed = sorted((one.account, one.state) for one in seen.breakers if one.state != "closed")
    if not not_closed:
        return Light(name, Colour.GREEN, "orders go to the broker")
    says = ", ".join(f"{state} for {account}" for account, state in not_closed)
    is_open = any(state == "open" for _, state in not_closed)
    return Light(name, Colour.RED if is_open else Colour.AMBER, f"the circuit breaker is {says}")


def _trading(seen: Surroundings) -> Light:
    name = LightName.TRADING
    held = sorted((scope, state) for scope, state in seen.controls if state is not TradingState.ACTIVE)
    if not held:
        return Light(name, Colour.GREEN, "nothing is halted")
    says = ", ".join(f"{scope} is {state}" for scope, state in held)
    halted = any(state is TradingState.HALTED for _, state in held)
    return Light(name, Colour.RED if halted else Colour.AMBER, says)


def _reconciler(seen: Surroundings) -> Light:
    name = LightName.RECONCILER
    if not seen.jobs:
        return Light(name, Colour.RED, "no job was ever run")
    late = [one.job for one in seen.jobs if one.idle is not None and one.idle > one.allowed]
    if late:
        return Light(name, Colour.RED, f"no cycle in its time of {', '.join(sorted(late))}")
    new = [one.job for one in seen.jobs if one.idle is None]
    if new:
        return Light(name, Colour.AMBER, f"no cycle yet of {', '.join(sorted(new))}")
    return Light(name, Colour.GREEN, "every job finishes its cycles")


def _open(seen: Surroundings, kinds: Iterable[IncidentKind]) -> list[str]:
    return [kind.value.replace("_", " ") for kind in kinds if kind in seen.incidents]
