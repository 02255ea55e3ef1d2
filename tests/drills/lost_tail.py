"""The newest 200 records of broker-fill and of submit-order lost by Kafka while every service runs and closes wait.

`python -m tests.drills.lost_tail`. Before it, fills wait for a fill-processor that is behind, and accepted closes for
an order-submitter that is: what nobody has read yet is lost too.
"""

from __future__ import annotations

import asyncio
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import devstack
from closeflow.contracts.topics import BROKER_FILL, SUBMIT_ORDER
from closeflow.kafka.group_lag import group_lag
from demo.system import System
from tests.drills.harness import INSTANCE, Lines, main, verified, whole_system
from tests.drills.outages import Watcher
from tests.system.desk import Desk, Held

LOST: Final = 200
BEFORE: Final = 200
"""Closes that are over when the records vanish; of each several records are in both topics."""
FILLED: Final = 40
"""Closes whose fills wait for the fill-processor."""
ACCEPTED: Final = 40
"""Closes that wait for the order-submitter."""
AFTERWARDS: Final = 40
GROUPS: Final = {"order-submitter": SUBMIT_ORDER, "fill-processor": BROKER_FILL}
WITHIN_S: Final = 600.0


# Base offset, length of what follows, leader epoch, magic, checksum, attributes, last offset's delta, first, last time.
_HEAD: Final = struct.Struct(">qiibIhiqq")
_LENGTH_FROM: Final = struct.calcsize(">qi")
_CHECKPOINTS: Final = ("recovery-point-offset-checkpoint", "replication-offset-checkpoint")
_MADE_ANEW: Final = (".index", ".timeindex", ".txnindex", ".snapshot")


class Batch(NamedTuple):
    """A batch of a log: where it lies in its file, and what it holds."""

    last_ms: int
    at: int
    records: int
    base: int


def cut_tail(kafka: Path, topic: str, count: int) -> dict[int, int]:
    """Take the newest `count` records of the topic (a batch as a whole), whatever their partitions, from Kafka's files,
    as a lost disk does; returns how many of each partition. Kafka is down, and `kafka` has its logs."""
    logs = {
        int(suffix): _segment(one)
        for one in kafka.glob(f"{topic}-[0-9]*")
        if (suffix := one.name.removeprefix(f"{topic}-")).isdecimal()  # Others are of a topic that was deleted.
    }
    left = {number: list(_batches(file)) for number, file in logs.items()}
    cut = dict.fromkeys(logs, 0)
    while sum(cut.values()) < count:
        with_records = [number for number, batches in left.items() if batches]
        assert with_records, f"{topic} has not {count} records"
        newest = max(with_records, key=lambda number: left[number][-1])
        cut[newest] += left[newest].pop().records
    for number, file in logs.items():
        if cut[number]:
            size = left[number][-1].at + _size(file, left[number][-1].at) if left[number] else 0
            with file.open("r+b") as log:
                log.truncate(size)
            for other in file.parent.iterdir():
                if other.suffix in _MADE_ANEW:
                    other.unlink()
    for name in _CHECKPOINTS:
        (kafka / name).unlink(missing_ok=True)
    return {number: records for number, records in cut.items() if records}


def _segment(directory: Path) -> Path:
    """The log of a partition that was never rolled."""
    (found,) = directory.glob("*.log")
    return found


def _batches(file: Path) -> Iterator[Batch]:
    data, at = file.read_bytes(), 0
    while at + _HEAD.size <= len(data):
        base, length, _, _, _, _, delta, _, last_ms = _HEAD.unpack_from(data, at)
        if length <= 0 or at + _LENGTH_FROM + length > len(data):
            return
        yield Batch(last_ms, at, delta + 1, base)
        at += _LENGTH_FROM + length


def _size(file: Path, at: int) -> int:
    with file.open("rb") as log:
        log.seek(at)
        _, length, *_ = _HEAD.unpack(log.read(_HEAD.size))
        return _LENGTH_FROM + int(length)


@contextmanager
def frozen(system: System, service: str) -> Iterator[None]:
    """The service is behind: it does nothing for a while, and goes on."""
    process = system.running[service].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def waiting(system: System) -> dict[str, int]:
    """How many records wait for each group."""
    lag = asyncio.run(group_lag(system.kafka, GROUPS))
    return {
        group: sum(end - at for (name, _, _), (at, end) in lag.items() if name == group and end > at)
        for group in GROUPS
    }


def lose_the_tail(system: System, desk: Desk, portfolio: Sequence[Held], lines: Lines) -> dict[str, int]:
    """Returns how many records nobody had read, by group."""
    filled, accepted = portfolio[:FILLED], portfolio[FILLED:]
    with frozen(system, "fill-processor"):
        for held in filled:
            desk.close(held)
        desk.until("the broker has filled", lambda: all(_is_flat(desk, held) for held in filled), within_s=WITHIN_S)
        desk.until("their fills wait", lambda: waiting(system)["fill-processor"] >= FILLED, within_s=WITHIN_S)
        with frozen(system, "order-submitter"):
            for held in accepted:
                desk.close(held)
            desk.until("they wait", lambda: waiting(system)["order-submitter"] >= ACCEPTED, within_s=WITHIN_S)
            unread = waiting(system)
            devstack.kill_part(INSTANCE, "kafka")
            kafka = system.stack.data_dir / "kafka"
            for topic in (SUBMIT_ORDER, BROKER_FILL):
                cut = cut_tail(kafka, topic, LOST)
                told = ", ".join(f"{number}: {records}" for number, records in sorted(cut.items()))
                lines.check(f"records of {topic} lost", sum(cut.values()) >= LOST, f"{sum(cut.values())} ({told})")
    devstack.up(INSTANCE)
    return unread


def _holds(desk: Desk) -> bool:
    try:
        desk.verify()
    except AssertionError:
        return False
    return True


def _is_flat(desk: Desk, held: Held) -> bool:
    return held.symbol not in desk.control.positions()


def drill(lines: Lines) -> None:
    with whole_system() as system:
        watcher = Watcher(system)
        with Desk(system) as desk:
            before = desk.hold_all([(9, "stock")] * BEFORE)
            for held in before:
                desk.close(held)
            desk.until_status("closed", before, within_s=WITHIN_S)
            portfolio = desk.hold_all([(9, "stock")] * (FILLED + ACCEPTED))
            unread = lose_the_tail(system, desk, portfolio, lines)
            back = time.monotonic()
            lines.check("records lost that nobody had read", min(unread.values()) >= ACCEPTED, unread)
            later = desk.hold_all([(9, "stock")] * AFTERWARDS)
            for held in later:
                desk.close(held)
            every = [*before, *portfolio, *later]
            ids = [held.id for held in every]
            closed = "SELECT count(*) FROM positions WHERE id = ANY(%s) AND status = 'closed'"
            took = watcher.until(lambda: desk.count(closed, ids) == len(every), within_s=WITHIN_S)
            lines.check("closed", took is not None, f"{desk.count(closed, ids)} of {len(every)}")
            if took is not None:
                desk.assert_closed_once(every)
                lines.check("closed once, the last one", True, f"{time.monotonic() - back:.1f} s after Kafka was back")
            # What was published and is gone is emitted again once the audit has missed it for half a minute.
            again = watcher.until(lambda: _holds(desk), within_s=WITHIN_S)
            since = "" if again is None else f", {time.monotonic() - back:.0f} s after Kafka was back"
            lines.check("verify holds", again is not None or verified(desk), f"22 invariants{since}")
            emitted = desk.count("SELECT count(*) FROM outbox_events WHERE emission > 1")
            lines.check("events emitted again", emitted > 0, emitted)
            compared = desk.reconcile()
            figures = {str(source): number for source, number in compared.counts.items()}
            agreed = compared.agrees and all(one.agrees for one in compared.days)
            lines.check("ledger, events and broker agree to the cent", agreed, compared.differences[:5] or figures)
            kinds = sorted(set(desk.incidents()))
            lost = desk.rows("SELECT subject, detail ->> 'text' AS told FROM incidents WHERE kind = 'log_tail_lost'")
            lines.check("told of each group", {row["subject"] for row in lost} == _subjects(), [kinds, lost])
            lag = asyncio.run(group_lag(system.kafka, GROUPS))
            beyond = {place: seen for place, seen in lag.items() if seen[0] > seen[1]}
            lines.check("no group is beyond the end of its log", not beyond, beyond or "none")
            lines.check("every service is ready", not watcher.unready(), watcher.unready() or "yes")
            lines.check("no service had to be started again", not watcher.told, watcher.told or "none")


def _subjects() -> set[str]:
    return {f"{group}/{topic}" for group, topic in GROUPS.items()}


if __name__ == "__main__":
    main(drill)
