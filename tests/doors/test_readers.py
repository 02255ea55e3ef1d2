"""Who reads much, or what takes long, holds up no closes."""

from __future__ import annotations

import threading
import time

import httpx
import psycopg

from .conftest import FOREIGN, Desk, Running

READERS = 40
READS_WAIT = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"


def test_closes_wait_for_no_reader(rest: httpx.Client, api: Running, desk: Desk) -> None:
    mine, (foreign,) = desk.open_positions(10), desk.open_positions(1, account=FOREIGN)
    theirs = {"Authorization": f"Bearer {desk.issuer.token(FOREIGN, subject='reader')}"}
    key = {"Idempotency-Key": "k"}
    accepted = httpx.post(f"{api.url}/v1/positions/{foreign}/close", headers=theirs | key)
    timeline = f"{api.url}/v1/close-requests/{accepted.json()['close_request_id']}/timeline"
    enough = threading.Event()

    def read() -> None:
        with httpx.Client(headers=theirs, timeout=30) as client:
            while not enough.is_set():
                client.get(timeline)

    readers = [threading.Thread(target=read) for _ in range(READERS)]
    took = []
    with psycopg.connect(desk.database.admin_dsn) as other:
        other.execute("LOCK TABLE executions")  # Which no close reads that is its position's first.
        for one in readers:
            one.start()
        until = time.monotonic() + 10
        while desk.run(READS_WAIT, desk.database.name)[0][0] < 2:
            assert time.monotonic() < until
        for position in mine:
            began = time.monotonic()
            assert rest.post(f"/v1/positions/{position}/close", headers=key).status_code == 201
            took.append(time.monotonic() - began)
        enough.set()
    for one in readers:
        one.join()
    assert max(took) < 1, took
