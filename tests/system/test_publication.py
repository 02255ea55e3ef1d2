"""What happens to the way from the outbox to Kafka while closes wait on it: all are sent, once, with no manual step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import httpx
import psycopg
import pytest

import devstack
from tests.system.conftest import DATABASE
from tests.system.desk import Desk, Held

CLOSE_API: Final = "close-api"
FIVE: Final = 5
OUTAGES: Final = {
    "connector_missing",
    "connector_unreachable",
    "connector_stopped",
    "connector_task_failed",
    "event_not_published",
    "outbox_default_partition_used",
    # Where the clock of close-api's database session is ten days behind, so is its host ahead of it, and a close of
    # which Kafka knows nothing yet has waited for ten days.
    "clock_skew",
    "close_not_planned",
    "slot_inactive",
    "slot_missing",
    "slot_lost",
}
"""What a person is told of while it lasts; that depends on how long it lasts."""


class Worker:
    """The outbox connector through Connect's REST interface, as an operator has it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        system = desk.system
        self.slot = system.outbox.slot
        url = f"{system.stack.connect_url}/connectors/{system.outbox.connector}"
        self._http = httpx.Client(base_url=url, timeout=10, verify=system.links.verify)

    def ask(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def tell(self, method: str, path: str, body: object = None) -> None:
        self._http.request(method, path, json=body).raise_for_status()

    def states(self) -> list[str]:
        answer = self._http.get("status")
        if answer.status_code != httpx.codes.OK:
            return []
        status = answer.json()
        return [status["connector"]["state"], *(task["state"] for task in status["tasks"])]

    def slot_is_active(self) -> bool | None:
        rows = self.desk.rows("SELECT active FROM pg_replication_slots WHERE slot_name = %s", self.slot)
        return bool(rows[0]["active"]) if rows else None

    def streams(self) -> bool:
        return self.states() == ["RUNNING", "RUNNING"] and self.slot_is_active() is True

    def stop(self) -> None:
        self.tell("PUT", "stop")
        self.desk.until("stopped", lambda: self.states() == ["STOPPED"] and self.slot_is_active() is False)


@pytest.fixture
def worker(desk: Desk) -> Iterator[Worker]:
    """Whatever the scenario did, at its end the connector streams and nothing is missing; the incidents of the outage
    are closed."""
    made = Worker(desk)
    assert made.streams()
    yield made
    desk.until("the connector streams", made.streams)
    open_ones = "SELECT count(*) FROM incidents WHERE closed_at IS NULL AND kind = ANY(%s)"
    desk.until("its incidents are closed", lambda: desk.count(open_ones, list(OUTAGES)) == 0)
    kinds = desk.incidents()
    assert set(kinds) <= OUTAGES
    desk.expected_incidents = kinds


@contextmanager
def connect_down(desk: Desk) -> Iterator[None]:
    instance = desk.system.stack.instance
    devstack.stop_part(instance, "connect")
    try:
        yield
    finally:
        devstack.start_part(instance, "connect")


def wait_for_closes(desk: Desk, worker: Worker) -> list[Held]:
    """Five closes that are accepted and of which nobody has heard."""
    portfolio = desk.hold_all([(9, "stock")] * FIVE)
    for held in portfolio:
        desk.close(held)
    assert [desk.orders(held) for held in portfolio] == [[]] * FIVE
    return portfolio


def assert_all_sent_once(desk: Desk, portfolio: Sequence[Held]) -> None:
    desk.until_status("closed", portfolio, within_s=60)
    desk.assert_closed_once(portfolio)


def test_a_slot_dropped_while_connect_is_down_is_recovered(desk: Desk, worker: Worker) -> None:
    before = recoveries(desk)
    with connect_down(desk):
        portfolio = wait_for_closes(desk, worker)
        desk.until("the slot is free", lambda: worker.slot_is_active() is False)
        desk.rows("SELECT pg_drop_replication_slot(%s)", worker.slot)

    assert_all_sent_once(desk, portfolio)
    desk.until("the recovery is recorded", lambda: recoveries(desk) == before + 1)
    (action,) = desk.rows("SELECT * FROM operator_actions WHERE action = 'recover_slot' ORDER BY id DESC LIMIT 1")
    assert (action["by"], action["subject"], action["after"]["slot"]["active"]) == ("reconciler", worker.slot, True)
    assert {"slot_lost", "event_not_published"} <= set(desk.incidents())


def recoveries(desk: Desk) -> int:
    return desk.count("SELECT count(*) FROM operator_actions WHERE action = 'recover_slot'")


def test_events_that_the_slot_was_moved_past_are_found_and_sent(desk: Desk, worker: Worker) -> None:
    before = recoveries(desk)
    worker.stop()
    portfolio = wait_for_closes(desk, worker)
    desk.rows("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", worker.slot)
    worker.tell("PUT", "resume")

    assert_all_sent_once(desk, portfolio)
    assert "event_not_published" in desk.incidents()
    # Mostly the connector runs and knows of nothing. Where PostgreSQL has let go of its place already it fails, and the
    # slot is recovered.
    assert recoveries(desk) - before in (0, 1)


def test_rows_that_a_snapshot_sends_again_make_no_new_order(desk: Desk, worker: Worker) -> None:
    portfolio = desk.hold_all([(9, "stock")] * FIVE)
    for held in portfolio:
        desk.close(held)
    desk.until_status("closed", portfolio)
    config = worker.ask("config")
    read = len(desk.read("submit-order"))
    asked = desk.count("SELECT count(*) FROM outbox_events WHERE topic = 'submit-order'")

    worker.stop()
    worker.tell("DELETE", "offsets")
    worker.tell("PUT", "config", config | {"snapshot.mode": "always"})
    worker.tell("PUT", "resume")
    desk.until("every row came again", lambda: len(desk.read("submit-order")) >= read + asked, within_s=60)
    # Debezium refuses for good to go on without snapshots after one that was cut off.
    desk.until("the snapshot is over", worker.streams)
    worker.stop()
    worker.tell("PUT", "config", config)
    worker.tell("PUT", "resume")
    desk.until("streaming", worker.streams)

    last = desk.hold(4)
    desk.close(last)
    assert_all_sent_once(desk, [*portfolio, last])


def test_a_day_is_not_cleaned_while_connect_is_down(desk: Desk, worker: Worker) -> None:
    """Closes of ten days ago, past the outbox's retention, of which Kafka knows nothing yet."""
    with ten_days_ago(desk) as day, connect_down(desk):
        portfolio = wait_for_closes(desk, worker)
        part = f"outbox_events_p{day:%Y%m%d}"
        of_the_day = "SELECT count(*) FROM outbox_events WHERE tableoid = to_regclass(%s) AND topic = 'submit-order'"
        desk.until("the day has its partition", lambda: desk.count(of_the_day, part) == FIVE)
        refusals = kept(desk, day)
        desk.until("the cleaner is refused again", lambda: kept(desk, day) > refusals)
        assert desk.count(of_the_day, part) == FIVE

    assert_all_sent_once(desk, portfolio)
    desk.until("the day is dropped", lambda: desk.count("SELECT count(to_regclass(%s))", part) == 0)


@contextmanager
def ten_days_ago(desk: Desk) -> Iterator[date]:
    """Imports and close-api write with a clock that is ten days behind; at the end it is the right one again."""
    operator, api = (f"ROLE closeflow_{name} IN DATABASE {DATABASE}" for name in ("operator", "close_api"))
    try:
        with desk.clock(operator, "-10 days"), desk.clock(api, "-10 days"):
            desk.restart(CLOSE_API)
            yield datetime.now(UTC).date() - timedelta(days=10)
    finally:
        desk.restart(CLOSE_API)


def kept(desk: Desk, day: date) -> int:
    """How often the reconciler was refused to drop the day."""
    told = map(json.loads, desk.system.running["reconciler"].log.read_text().splitlines())
    return sum((one["event"], one.get("day")) == ("outbox_partition_kept", str(day)) for one in told)


def test_a_task_that_failed_is_restarted(desk: Desk, worker: Worker) -> None:
    """Its publication is gone for a moment: it fails, and would stay FAILED for ever."""
    with psycopg.connect(desk.system.admin_dsn, autocommit=True) as owner:
        owner.execute("ALTER PUBLICATION closeflow_outbox RENAME TO closeflow_elsewhere")
        try:
            worker.tell("POST", "restart?includeTasks=true")
            desk.until("the task failed", lambda: "FAILED" in worker.states())
        finally:
            owner.execute("ALTER PUBLICATION closeflow_elsewhere RENAME TO closeflow_outbox")
    held = desk.hold(3)
    desk.close(held)
    desk.until("restarted", worker.streams, within_s=60)
    assert_all_sent_once(desk, [held])
