"""Publish what was said of a position once more, for a consumer that lost it, through the outbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from closeflow.domain.model import Topic
from closeflow.domain.operator.requests import Refused
from closeflow.domain.outbox.publication_audit import Emission, replay
from closeflow.operating.acting import Acted, Operator, OperatorAction, lock_one, record
from closeflow.storage.core.engine import Database, Transaction, retrying
from closeflow.storage.outbox_audit import copy_events, days_of_position, events_dropped, locked_emissions

TOPICS = (Topic.POSITION_EVENTS, Topic.EXECUTION_EVENTS)
"""What consumers build on. That an order is asked for again is no replay: the reconciler does it where it is due."""


async def replay_events(
    database: Database, position_id: int, topics: Collection[Topic], operator: Operator, *, dry: bool
) -> Acted | Refused:
    """Emit again, with the next emission, every event of the position that the outbox has. Raises NotThere."""
    act = OperatorAction(operator, "replay_events", str(position_id))

    async def work(tx: Transaction) -> Acted | Refused:
        before = await lock_one(tx, operator, position_id=position_id)
        emissions = await locked_emissions(tx, positions=[position_id])
        keys = replay(emissions, topics)
        dropped = await events_dropped(tx, position_id=position_id)
        if not keys:
            return Refused(
                (f"the outbox has no event of position {position_id} for {', '.join(topics)}{_rest(dropped)}",)
            )
        counts = Counter(_topics_of(emissions)[event_id] for event_id, _ in keys)
        told = ", ".join(f"{number} of {topic}" for topic, number in sorted(counts.items()))
        if not dry:
            await copy_events(tx, days=await days_of_position(tx, position_id=position_id), keys=keys)
            await record(tx, act, account=before.position.account_id, after={"events": dict(counts)})
        return Acted(f"{told} of position {position_id} published again{_rest(dropped)}")

    return await retrying(database, work)


def _topics_of(emissions: Collection[Emission]) -> dict[object, str]:
    return {one.key[0]: one.topic for one in emissions}


def _rest(dropped: int) -> str:
    if not dropped:
        return ""
    return (
        f"; {dropped} events more are older than the outbox keeps: a consumer that lacks them reads its topic from the "
        "beginning"
    )
