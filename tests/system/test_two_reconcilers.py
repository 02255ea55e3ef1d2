"""Two reconcilers on one database: what is due is done once, also when one of them is killed in the middle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from broker_simulator.control import Behaviour, FillThen, Reject
from tests.system.desk import Desk

THIRTY: Final = 30
SECOND: Final = "reconciler-2"
PRICE_BAND: Final = Behaviour(answer=Reject(message="price is outside of the price band"))
PARTLY: Final = Behaviour(execution=FillThen(quantity=4, then="cancel"))


@pytest.fixture
def two(desk: Desk) -> Iterator[Desk]:
    """The desk with a second reconciler beside the first."""
    desk.system.start(SECOND)
    try:
        yield desk
    finally:
        missing = [name for name in ("reconciler", SECOND) if name not in desk.system.running]
        desk.system.start(*missing)
        ended = desk.system.stop(SECOND)
    assert ended == 0


def test_two_reconcilers_retry_each_close_once(two: Desk) -> None:
    """The first two attempts of every close are refused, or filled in part and cancelled, so that sixty retries fall
    due while two reconcilers look for them; the first of them is killed when it is in the middle."""
    portfolio = two.hold_all([(10, "stock")] * THIRTY)
    ids = [held.id for held in portfolio]
    for number, held in enumerate(portfolio):
        for behaviour in (PRICE_BAND, PARTLY) if number % 2 else (PARTLY, PRICE_BAND):
            two.control.script(behaviour, symbol=held.symbol, count=1)

    def retried() -> int:
        return two.count(
            "SELECT COALESCE(sum(attempt - 1), 0)::int FROM close_requests WHERE position_id = ANY(%s)", ids
        )

    for held in portfolio:
        two.close(held)
    two.until("five retries", lambda: retried() >= 5)
    two.system.kill("reconciler")
    assert retried() < 2 * THIRTY, "it was killed in the middle"
    two.until("the other one goes on", lambda: retried() >= THIRTY)
    two.system.start("reconciler")

    two.until_status("closed", portfolio)
    two.assert_closed_once(portfolio, attempts=3)
    requests = two.rows("SELECT attempt, retry_count, emission FROM close_requests WHERE position_id = ANY(%s)", ids)
    # A price band passes by itself: waiting for that costs no retry.
    assert {(row["attempt"], row["retry_count"]) for row in requests} == {(3, 1)}
    events = two.rows(
        "SELECT close_request_id, attempt, emission FROM outbox_events"
        " WHERE position_id = ANY(%s) AND event_type = 'SUBMIT_CLOSE_ORDER'",
        ids,
    )
    assert len({(row["close_request_id"], row["attempt"]) for row in events}) == 3 * THIRTY
    assert max(Counter(tuple(row.values()) for row in events).values()) == 1, "one event per emission"
    versions = two.rows(
        "SELECT position_id, position_version FROM outbox_events WHERE position_id = ANY(%s) AND topic = %s",
        ids,
        "position-events",
    )
    assert max(Counter(tuple(row.values()) for row in versions).values()) == 1, "one event per version"
