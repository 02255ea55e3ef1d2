"""Connect killed (-9) while many transactions are open across a heartbeat, its last stored offset the heartbeat's, and
committed in another order than they wrote: what Debezium before 3.7 may lose (debezium/dbz#76).

`python -m tests.drills.interleaved [rounds]`. Each transaction is an accepted close, held at its commit by a deferred
trigger. What was lost is what the connector never published: rows of the outbox of which no record is in Kafka. Every
second round moves its slot past the open transactions while it is down, which loses them for sure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import httpx
import psycopg

import devstack
from demo.system import System
from tests.drills.harness import INSTANCE, Lines, main, verified, whole_system
from tests.system.desk import Desk, Held

ROUNDS: Final = 5
OPEN: Final = 24
"""So many closes are asked for across a heartbeat; close-api puts some of them into one transaction."""
HEARTBEAT_S: Final = 5.0
STORED_WITHIN_S: Final = 1.3
"""Connect stores offsets every second."""
DOORS: Final = ("close-api", "close-api-2", "close-api-3")
"""Each has at most eight transactions under way."""
GATE: Final = 760_001
SETTLED_WITHIN_S: Final = 180.0
HOLD: Final = f"""
    CREATE FUNCTION drill_hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({GATE});
        PERFORM pg_sleep(random() * 0.05);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER drill_hold AFTER INSERT ON close_requests DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION drill_hold();
"""
SETTINGS: Final = {
    "close-api": {
        "POSTGRES_POOL_SIZE": "12",
        "BATCHES_IN_FLIGHT": "8",
        "BATCH_SIZE": "1",
        "REQUEST_DEADLINE_MS": "9000",
    },
    # Only what the audit repairs is to be seen, not what is asked for again because nobody answered.
    "reconciler": {"RESEND_AFTER_S": "600"},
}
_ACTIVE: Final = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s AND active"
_HELD: Final = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
_MISSING: Final = "SELECT count(*) FROM incidents WHERE kind = 'event_not_published' AND closed_at IS NULL"
_AGAIN: Final = "SELECT count(*) FROM outbox_events WHERE emission > 1"
_EVER_MISSING: Final = "SELECT count(*) FROM incidents WHERE kind = 'event_not_published'"


@contextmanager
def gate_closed(dsn: str) -> Iterator[None]:
    """While it is closed, no accepted close commits."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("SELECT pg_advisory_lock(%s)", (GATE,))
        yield


def unpublished(desk: Desk) -> set[tuple[str, int]]:
    """Event and emission of the rows that no record in Kafka is of, though later ones have had their time."""
    rows = desk.rows("SELECT id, emission, topic FROM outbox_events")
    await_heartbeat(desk)
    await_heartbeat(desk)
    found = set()
    for topic in {row["topic"] for row in rows}:
        for record in desk.read(topic):
            headers = {name: raw.decode() for name, raw in record.headers if raw is not None}
            if "emission" in headers and "ce_id" in headers:
                found.add((headers["ce_id"], int(headers["emission"])))
    return {(str(row["id"]), row["emission"]) for row in rows} - found


def heartbeat(desk: Desk) -> datetime | None:
    rows = desk.rows("SELECT max(at) AS at FROM debezium_heartbeat")
    found: datetime | None = rows[0]["at"]
    return found


def await_heartbeat(desk: Desk) -> None:
    before = heartbeat(desk)
    desk.until("a heartbeat", lambda: heartbeat(desk) != before, within_s=30)


def stored_offset(system: System) -> dict[str, Any]:
    url = f"{system.stack.connect_url}/connectors/{system.outbox.connector}/offsets"
    offsets = httpx.get(url, timeout=10).raise_for_status().json()["offsets"]
    found: dict[str, Any] = offsets[0]["offset"]
    return found


def ask(system: System, held: Held, door: str) -> None:
    """Until it is accepted, or was."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    with httpx.Client(base_url=system.url(door), headers=system.authorization(), timeout=12.0) as http:
        while (answer := http.post(held.path, headers={"Idempotency-Key": "k"}, json={})).status_code not in (200, 201):
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            assert time.monotonic() < deadline, answer.text
            time.sleep(float(answer.headers["retry-after"]))


def one_round(number: int, desk: Desk, system: System, portfolio: list[Held], lines: Lines) -> int:
    """Returns how many events were lost."""
    again, known = desk.count(_AGAIN), unpublished(desk)
    before = desk.count(_EVER_MISSING)
    await_heartbeat(desk)
    time.sleep(HEARTBEAT_S - 2.0)
    dsn = system.admin_dsn
    with ThreadPoolExecutor(OPEN) as threads:
        with gate_closed(dsn):
            asked = [threads.submit(ask, system, held, DOORS[n % 3]) for n, held in enumerate(portfolio)]
            await_heartbeat(desk)
            time.sleep(STORED_WITHIN_S)
            offset, held_back = stored_offset(system), desk.count(_HELD, GATE)
            devstack.kill_part(INSTANCE, "connect")
            killed = time.monotonic()
        for one in asked:
            one.result()
    if number % 2:
        desk.until("the slot is free", lambda: desk.count(_ACTIVE, system.outbox.slot) == 0)
        desk.rows("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", system.outbox.slot)
    devstack.up(INSTANCE)
    back = time.monotonic()
    ids = [held.id for held in portfolio]
    open_ones = "SELECT count(*) FROM positions WHERE id = ANY(%s) AND status <> 'closed'"
    desk.until("closed", lambda: desk.count(open_ones, ids) == 0, within_s=SETTLED_WITHIN_S)
    closed = time.monotonic() - back
    desk.until("every event is published", lambda: desk.count(_MISSING) == 0, within_s=SETTLED_WITHIN_S)
    told, lost, copied = desk.count(_EVER_MISSING) - before, unpublished(desk) - known, desk.count(_AGAIN) - again
    name = f"round {number}{', slot moved' if number % 2 else ''}"
    print(
        f"  {name}: {held_back} transactions open at the kill, stored offset {offset.get('lsn')} of a"
        f" {offset.get('messageType')}; Connect was away {back - killed:.0f} s; told missing: {told}, never published:"
        f" {len(lost)}, emitted again by the audit: {copied}; closed {closed:.0f} s after it was back",
        flush=True,
    )
    lines.check(f"{name}: what was lost is emitted again", copied >= len(lost), f"{copied} for {len(lost)}")
    return len(lost)


def drill(lines: Lines) -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with whole_system(SETTINGS, keep_servers=devstack.find(INSTANCE) is not None) as system, Desk(system) as desk:
        system.start(*DOORS[1:])
        with psycopg.connect(system.admin_dsn, autocommit=True) as owner:
            owner.execute(HOLD)
        portfolio = desk.hold_all([(9, "stock")] * (rounds * OPEN))
        lost = sum(one_round(n, desk, system, portfolio[n::rounds], lines) for n in range(rounds))
        done = desk.count("SELECT count(*) FROM positions WHERE status = 'closed'")
        lines.check("every close is closed", done == len(portfolio), f"{done} of {len(portfolio)}")
        print(f"  events that the connector lost in all rounds: {lost}", flush=True)
        doubles = [one.client_order_id for one in desk.control.orders() if one.accepted > 1]
        lines.check("no order is at the broker twice", not doubles, doubles)
        lines.check("closectl verify", verified(desk), "holds")
        with psycopg.connect(system.admin_dsn, autocommit=True) as owner:
            owner.execute("DROP TRIGGER drill_hold ON close_requests")


if __name__ == "__main__":
    main(drill)
