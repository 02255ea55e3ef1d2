"""kill -9 in the middle of closes: each is still closed by one order, and each of its executions booked once."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import httpx
import pytest

from broker_simulator.control import AcceptLate, AcceptSilently, Behaviour, FillInParts
from tests.system.desk import WITHIN_S, Desk, Held

FIFTY: Final = 50
HUNDRED: Final = 100
BEFORE_THE_CRASH: Final = 30
EVERY_SERVICE: Final = ("order-submitter", "fill-processor", "close-api", "broker-gateway", "reconciler")
CRASHING: Final = (["order-submitter"], ["fill-processor"], ["broker-gateway", "close-api"])
IN_PARTS: Final = FillInParts(parts=3, every_s=0.4)
# Half the answers come late and half the orders are even taken late, so that a crash of the sender leaves sends of
# which it is not known whether the broker has them, or will have them.
SLOW: Final = (
    Behaviour(answer=AcceptSilently(answer_after_s=0.4), execution=IN_PARTS),
    Behaviour(answer=AcceptLate(hold_s=0.4), execution=IN_PARTS),
)


@contextmanager
def closing(desk: Desk, portfolio: Sequence[Held], *, every_s: float = 0.04) -> Iterator[threading.Event]:
    """A portfolio service that asks for all of them, and repeats a call that got no answer or is to come later. After
    the first 30 it waits for the event, so that the crash is in the middle however fast or slow the machine is."""
    go_on = threading.Event()
    refused: list[str] = []

    def ask_for_all() -> None:
        system = desk.system
        headers, verify = system.authorization(), system.links.verify
        with httpx.Client(base_url=system.url(), headers=headers, timeout=5.0, verify=verify) as http:
            for number, held in enumerate(portfolio):
                if number == BEFORE_THE_CRASH:
                    go_on.wait(WITHIN_S)
                answer = _ask(http, held)
                if answer is None or answer.status_code not in (httpx.codes.CREATED, httpx.codes.OK):
                    refused.append(f"{held.symbol}: {answer.text if answer else 'no answer'}")
                time.sleep(every_s)

    asking = threading.Thread(target=ask_for_all)
    asking.start()
    try:
        yield go_on
    finally:
        go_on.set()
        asking.join()
    assert refused == []


def _ask(http: httpx.Client, held: Held) -> httpx.Response | None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            answer = http.post(held.path, headers={"Idempotency-Key": f"close-{held.id}"}, json={})
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer
        time.sleep(float(answer.headers["retry-after"]))
    return None


@pytest.mark.parametrize("services", CRASHING, ids="+".join)
def test_a_crash_in_the_middle_of_fifty_closes_changes_nothing(desk: Desk, services: Sequence[str]) -> None:
    portfolio = desk.hold_all([(9, "stock")] * FIFTY)
    ids = [held.id for held in portfolio]
    for number, held in enumerate(portfolio):
        desk.control.script(SLOW[number % len(SLOW)], symbol=held.symbol)

    def planned() -> int:
        return desk.count("SELECT count(*) FROM orders WHERE position_id = ANY(%s)", ids)

    def booked() -> int:
        return desk.count("SELECT count(*) FROM executions WHERE position_id = ANY(%s)", ids)

    def closed() -> int:
        return desk.count("SELECT count(*) FROM positions WHERE id = ANY(%s) AND status = 'closed'", ids)

    def unanswered() -> int:
        query = "SELECT count(*) FROM order_sends JOIN orders USING (client_order_id)"
        return desk.count(f"{query} WHERE position_id = ANY(%s) AND answered_at IS NULL", ids)

    with closing(desk, portfolio) as go_on:
        desk.until("ten planned, some executions booked", lambda: planned() >= 10 and booked() >= 3)
        go_on.set()
        desk.until("a send that is not answered yet", unanswered)
        for service in services:
            desk.system.kill(service)
        assert (planned() < FIFTY, closed() < 40, booked() < 3 * BEFORE_THE_CRASH) == (True, True, True)
        desk.system.start(*services)

    desk.until_status("closed", portfolio)
    desk.assert_closed_once(portfolio, posts=None)
    sent = desk.rows("SELECT client_order_id FROM orders WHERE position_id = ANY(%s)", ids)
    accepted = [one for one in desk.control.orders() if {"client_order_id": one.client_order_id} in sent]
    assert len(accepted) == FIFTY
    assert {one.accepted for one in accepted} == {1}
    assert booked() == 3 * FIFTY


def test_services_that_are_killed_again_and_again_close_a_hundred_positions_once(desk: Desk) -> None:
    """As soon as something was booked after a crash, the next service is killed, until every position is closed."""
    portfolio = desk.hold_all([(9, "stock")] * HUNDRED)
    ids = [held.id for held in portfolio]
    for number, held in enumerate(portfolio):
        desk.control.script(SLOW[number % len(SLOW)], symbol=held.symbol)

    def closed() -> int:
        return desk.count("SELECT count(*) FROM positions WHERE id = ANY(%s) AND status = 'closed'", ids)

    def booked() -> int:
        return desk.count("SELECT count(*) FROM executions WHERE position_id = ANY(%s)", ids)

    killed = Counter[str]()
    with closing(desk, portfolio, every_s=0.4) as go_on:
        go_on.set()
        desk.until("something is booked", booked)
        for service in itertools.cycle(EVERY_SERVICE):
            before = booked()
            desk.system.kill(service)
            killed[service] += 1
            desk.system.start(service)
            desk.until("more is booked", partial(_more, booked, before, 3 * HUNDRED))
            if closed() == HUNDRED:
                break
    assert set(killed) == set(EVERY_SERVICE), "every service was killed while closes were under way"

    desk.assert_closed_once(portfolio, posts=None)
    assert booked() == 3 * HUNDRED


def _more(count: Callable[[], int], before: int, most: int) -> bool:
    return before < count() or before == most
