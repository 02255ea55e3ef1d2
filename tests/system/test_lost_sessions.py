"""The database ends sessions and holds locks: no service ends for it, and readiness says so."""

from __future__ import annotations

import threading
import time
from typing import Final

import httpx
import psycopg

from tests.system.desk import Desk

LOCKED_S: Final = 11.0
"""Longer than a statement waits for a lock."""
CONSUMERS: Final = ("order-submitter", "fill-processor")


def _processes(desk: Desk) -> dict[str, int]:
    return {name: service.process.pid for name, service in desk.system.running.items()}


def _ready(desk: Desk, name: str) -> bool:
    return httpx.get(f"{desk.system.url(name)}/readyz", timeout=5.0).status_code == httpx.codes.OK


def test_a_service_outlives_its_sessions_again_and_again(desk: Desk) -> None:
    before = _processes(desk)
    portfolio = desk.hold_all([(9, "stock")] * 12)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)"
    for held in portfolio:
        desk.close(held)
        desk.until("a session that can be ended", lambda: desk.rows(end, list(CONSUMERS)))
    desk.until_status("closed", portfolio)
    desk.assert_closed_once(portfolio, posts=None)
    assert _processes(desk) == before
    for name in CONSUMERS:
        desk.until(f"{name} is ready", lambda name=name: _ready(desk, name))  # type: ignore[misc]


def test_a_service_outlives_a_lock_that_is_held_longer_than_it_may_wait(desk: Desk) -> None:
    before = _processes(desk)
    held = desk.hold(9)

    def lock() -> None:
        with psycopg.connect(desk.system.admin_dsn) as admin:
            admin.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            locked.set()
            time.sleep(LOCKED_S)

    locked = threading.Event()
    locking = threading.Thread(target=lock)
    locking.start()
    locked.wait()
    desk.close(held)
    locking.join()
    desk.until_status("closed", [held])
    desk.assert_closed_once([held], posts=None)
    assert _processes(desk) == before
    for name in CONSUMERS:
        desk.until(f"{name} is ready", lambda name=name: _ready(desk, name))  # type: ignore[misc]
