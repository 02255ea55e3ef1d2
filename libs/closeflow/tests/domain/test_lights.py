"""Which light is on for what is seen around the closes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest

from closeflow.domain.incidents import IncidentKind
from closeflow.domain.operator.lights import (
    LAG_AMBER_BYTES,
    LAG_RED_BYTES,
    BreakerSeen,
    Colour,
    JobSeen,
    LightName,
    Surroundings,
    lights,
)
from closeflow.domain.outbox.replication_slot import Slot
from closeflow.domain.trading_controls import TradingState


def a_slot(**changes: Any) -> Slot:
    given = {"active": True, "wal_status": "reserved", "invalidation": None, "lag_bytes": 100}
    return Slot(**{**given, "wal_kept_bytes_left": None, **changes})


GOOD: Final[dict[str, Any]] = {
    "slot": a_slot(),
    "heartbeat_age": timedelta(seconds=6),
    "breakers": [BreakerSeen("A", "closed")],
    "controls": [("global", TradingState.ACTIVE)],
    "jobs": [JobSeen("wake", timedelta(seconds=1), timedelta(seconds=30))],
    "incidents": [],
}
RED, AMBER = Colour.RED, Colour.AMBER
ROWS: Final[list[tuple[dict[str, Any], LightName, Colour, str]]] = [
    ({"heartbeat_age": None}, LightName.CONNECTOR, RED, "never"),
    ({"heartbeat_age": timedelta(seconds=30)}, LightName.CONNECTOR, AMBER, "30 s old"),
    ({"heartbeat_age": timedelta(seconds=60)}, LightName.CONNECTOR, RED, "60 s old"),
    ({"incidents": [IncidentKind.CONNECTOR_STOPPED]}, LightName.CONNECTOR, RED, "connector stopped"),
    ({"slot": None}, LightName.SLOT, RED, "not there"),
    ({"slot": a_slot(wal_status="lost")}, LightName.SLOT, RED, "gone"),
    ({"slot": a_slot(invalidation="wal_removed")}, LightName.SLOT, RED, "gone"),
    ({"slot": a_slot(wal_status="unreserved")}, LightName.SLOT, RED, "about to"),
    ({"slot": a_slot(active=False)}, LightName.SLOT, RED, "nothing reads"),
    ({"slot": a_slot(lag_bytes=LAG_AMBER_BYTES)}, LightName.LAG, AMBER, "64 MiB"),
    ({"slot": a_slot(lag_bytes=LAG_RED_BYTES)}, LightName.LAG, RED, "1024 MiB"),
    ({"incidents": [IncidentKind.CONSUMER_STALLED]}, LightName.LAG, RED, "consumer stalled"),
    ({"breakers": [BreakerSeen("A", "open")]}, LightName.BREAKER, RED, "open for A"),
    ({"breakers": [BreakerSeen("A", "half_open")]}, LightName.BREAKER, AMBER, "half_open for A"),
    ({"controls": [("A", TradingState.HALTED)]}, LightName.TRADING, RED, "A is halted"),
    ({"controls": [("A", TradingState.REDUCING)]}, LightName.TRADING, AMBER, "A is reducing"),
    ({"jobs": []}, LightName.RECONCILER, RED, "no job"),
    ({"jobs": [JobSeen("wake", None, timedelta(seconds=9))]}, LightName.RECONCILER, AMBER, "no cycle yet of wake"),
    ({"jobs": [JobSeen("wake", timedelta(seconds=10), timedelta(seconds=9))]}, LightName.RECONCILER, RED, "wake"),
]


def test_every_light_is_green_where_nothing_is_wrong() -> None:
    found = lights(Surroundings(**GOOD))
    assert [one.name for one in found] == list(LightName)
    assert {one.colour for one in found} == {Colour.GREEN}


@pytest.mark.parametrize(("seen", "name", "colour", "says"), ROWS, ids=[f"{r[1]} {r[2]}: {r[3]}" for r in ROWS])
def test_one_light_tells_of_what_is_wrong(seen: dict[str, Any], name: LightName, colour: Colour, says: str) -> None:
    found = {one.name: one for one in lights(Surroundings(**{**GOOD, **seen}))}
    assert found[name].colour is colour
    assert says in found[name].says
    about_the_slot = {LightName.SLOT, LightName.LAG} if "slot" in seen else {name}
    assert {one.name for one in found.values() if one.colour is not Colour.GREEN} <= about_the_slot
