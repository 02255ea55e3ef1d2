"""Whether closes can be accepted: the database answers, is at this code's schema, and keeps the outbox for Debezium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from closeflow.clock import timeout
from closeflow.storage.close_requests import DatabaseAway, Engine, Tx, transact
from closeflow.storage.replication_slot import slot_is_active
from closeflow.storage.schema.fit import schema_trouble

_DEADLINE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """`degraded` is ready: accepting is safe while nobody reads the slot, because it keeps what was written."""

    status: Literal["ready", "degraded", "unready"]
    reasons: tuple[str, ...] = ()


async def look(engine: Engine, *, slot: str) -> Readiness:
    """Ask the database. It never raises for one that is away: that is `unready`; a stopped connector is `degraded`."""

    async def work(tx: Tx) -> Readiness:
        if (trouble := await schema_trouble(tx)) is not None:
            return Readiness("unready", (trouble,))
        match await slot_is_active(tx, name=slot):
            case None:
                return Readiness("unready", (f"there is no replication slot {slot}; register the connector",))
            case False:
                return Readiness("degraded", (f"nothing reads the replication slot {slot}; start the connector",))
            case _:
                return Readiness("ready")

    try:
        async with timeout(_DEADLINE_S):
            return await transact(engine, work)
    except (DatabaseAway, TimeoutError):
        return Readiness("unready", ("the database does not answer",))
