"""The kill switch, account limits, a storm of refusals and a closed market, on the whole system."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import httpx

from broker_simulator.control import Behaviour, FillAtOnce, MarketHours, OrderSeen, Reject
from closeflow.domain.ids import client_order_id
from demo.system import ACCOUNT
from tests.closectl.running import closectl
from tests.system.desk import Desk, Held

PRICE_BAND: Final = Reject(status=403, code=40310000, message="price is outside of the price band")
LIMITS: Final = {"max-order-qty": "1000000", "max-order-notional": "100000000", "submits-per-minute": "6000"}


def act(desk: Desk, *arguments: str) -> datetime:
    """An operator's verb; returns a time after its commit."""
    done = closectl(*arguments, "--reason", "a test", "--by", "tester", **desk.operator)
    assert done.exit_code == 0, done.stderr
    return datetime.now(UTC)


@contextmanager
def limited(desk: Desk, **limits: str) -> Iterator[None]:
    def change(chosen: dict[str, str]) -> None:
        act(desk, "limits", "set", "--account", ACCOUNT, *(f"--{name}={value}" for name, value in chosen.items()))

    change({name.replace("_", "-"): value for name, value in limits.items()})
    try:
        yield
    finally:
        change(LIMITS)


def seen(desk: Desk, requests: Sequence[str]) -> list[OrderSeen]:
    ids = {client_order_id(UUID(request), attempt) for request in requests for attempt in range(1, 9)}
    return [one for one in desk.control.orders() if one.client_order_id in ids]


def times(orders: Sequence[OrderSeen]) -> list[datetime]:
    return [datetime.fromisoformat(post.at) for order in orders for post in order.posts]


def states(desk: Desk, requests: Sequence[str], columns: str) -> list[tuple[object, ...]]:
    found = desk.rows(f"SELECT DISTINCT {columns} FROM close_requests WHERE id = ANY(%s::uuid[])", list(requests))  # noqa: S608
    return [tuple(row.values()) for row in found]


class Closing:
    """Asks for closes one after the other, while the scenario goes on."""

    def __init__(self, desk: Desk, portfolio: Sequence[Held]) -> None:
        self.answers: dict[Held, int] = {}
        self.accepted: dict[Held, str] = {}
        self._desk = desk
        self._thread = threading.Thread(target=self._close_all, args=[portfolio])
        self._thread.start()

    def _close_all(self, portfolio: Sequence[Held]) -> None:
        for held in portfolio:
            answer = self._desk.post(held, "k")
            if answer.status_code == httpx.codes.CREATED:
                self.accepted[held] = answer.json()["close_request_id"]
            self.answers[held] = answer.status_code

    def join(self) -> None:
        self._thread.join()


def test_after_a_halt_nothing_leaves_and_fills_go_on(desk: Desk) -> None:
    """Fifty closes are on their way when trading is halted. One more waits for a quote, so it cannot have been sent."""
    late, extra, *portfolio = desk.hold_all([(10, "stock")] * 52)
    for held in portfolio:
        desk.control.script(Behaviour(execution=FillAtOnce(after_s=2)), symbol=held.symbol)
    desk.control.withhold_quote(late.symbol)
    waiting = [desk.close(late)]
    desk.until("the late one waits", lambda: states(desk, waiting, "reason") == [("no_fresh_quote",)])
    closing = Closing(desk, portfolio)
    try:
        desk.until("some are at the broker", lambda: len(seen(desk, list(closing.accepted.values()))) >= 5)
        halted_at = act(desk, "halt")
        desk.control.pin_quote(late.symbol, "99.95", "100.05")
        closing.join()
        assert set(closing.answers.values()) <= {httpx.codes.CREATED, httpx.codes.SERVICE_UNAVAILABLE}
        refused = desk.post(extra, "k")
        assert (refused.status_code, refused.json()["code"]) == (503, "trading_halted")
        assert int(refused.headers["retry-after"]) > 0
        assert desk.post(late, "k").status_code == httpx.codes.OK  # a replay
        desk.until("the late one is halted", lambda: states(desk, waiting, "reason") == [("trading_halted",)])
        assert_still_halted_after_a_restart(desk, waiting)
        sent = [one for one in portfolio if desk.at_broker(one)]
        desk.until_status("closed", sent)  # What was at work is filled and booked.
        assert max(times(seen(desk, list(closing.accepted.values())))) <= halted_at + timedelta(seconds=1)
        assert seen(desk, waiting) == []
    finally:
        closing.join()
        act(desk, "release")
    for held in (extra, *portfolio):
        if held not in closing.accepted:
            desk.close(held)
    desk.until_status("closed", [late, extra, *portfolio])
    desk.assert_closed_once([late, extra, *portfolio])


SEND_AGAIN: Final = """
    INSERT INTO outbox_events (id, emission, topic, key, event_type, schema_version, payload, close_request_id, attempt,
        position_id)
    SELECT id, emission + 1000, topic, key, event_type, schema_version, payload, close_request_id, attempt, position_id
    FROM outbox_events WHERE topic = 'submit-order' AND close_request_id = %s ORDER BY emission LIMIT 1
    RETURNING emission"""


def assert_still_halted_after_a_restart(desk: Desk, waiting: Sequence[str]) -> None:
    desk.system.stop("order-submitter")
    desk.system.start("order-submitter")
    # The reconciler sees the halt too and asks for nothing, so the event is sent again here.
    (before,) = states(desk, waiting, "next_attempt_at")
    desk.rows(SEND_AGAIN, waiting[0])
    desk.until("it was asked for once more", lambda: states(desk, waiting, "next_attempt_at") != [before])
    assert states(desk, waiting, "reason") == [("trading_halted",)]


def test_a_storm_of_refusals_opens_the_breaker_and_spares_the_retries(desk: Desk) -> None:
    portfolio = desk.hold_all([(10, "stock")] * 50)
    desk.control.script(Behaviour(answer=PRICE_BAND))

    requests = [desk.close(held) for held in portfolio]

    breaker = "SELECT count(*) FROM broker_breakers WHERE account_id = %s AND state = 'open' AND refusals >= 10"
    desk.until("the breaker is open", lambda: desk.count(breaker, ACCOUNT) == 1)
    desk.until("probes are refused", lambda: sum(one.posts_received for one in seen(desk, requests)) >= 15)
    desk.control.clear_script()

    desk.until_status("closed", portfolio)
    assert states(desk, requests, "status") == [("completed",)]
    sends = Counter(UUID(one.client_order_id[3:35]) for one in seen(desk, requests) for _ in one.posts)
    assert states(desk, requests, "max_retries") == [(3,)]
    assert max(sends.values()) <= 4
    closed = "SELECT count(*) FROM broker_breakers WHERE account_id = %s AND state = 'closed'"
    desk.until("the breaker is closed", lambda: desk.count(closed, ACCOUNT) == 1)


def test_a_close_waits_overnight_and_wakes_when_the_market_opens(desk: Desk) -> None:
    stock, coin = desk.hold_all([(10, "stock"), ("0.5", "crypto")])
    opens_at = datetime.now(UTC) + timedelta(seconds=6)
    desk.control.set_hours(MarketHours(is_open=False, next_open=opens_at))
    try:
        night = [desk.close(stock)]
        desk.close(coin)
        desk.until("it waits", lambda: states(desk, night, "reason") == [("market_closed",)])
        desk.until_status("closed", [coin])  # crypto has no night
        assert seen(desk, night) == []
        desk.until_status("closed", [stock])
    finally:
        desk.control.set_hours(MarketHours())
    assert states(desk, night, "status, attempt, retry_count") == [("completed", 1, 0)]
    assert min(times(seen(desk, night))) >= opens_at
    desk.assert_closed_once([stock, coin])


def test_an_order_over_the_limits_of_its_account_is_an_incident_and_no_send(desk: Desk) -> None:
    stock, option = portfolio = desk.hold_all([(10, "stock"), (3, "option")])
    with limited(
        desk, max_order_qty="9", max_order_notional="29000"
    ):  # three contracts of 100 at 99.95 are worth 29 985
        requests = [desk.close(stock), desk.close(option)]
        desk.until_status("open", portfolio)
        assert states(desk, requests[:1], "status, reason") == [("failed", "over_max_order_qty")]
        assert states(desk, requests[1:], "status, reason") == [("failed", "over_max_order_notional")]
        assert seen(desk, requests) == []
    desk.expected_incidents = ["account_limit_breached"] * 2
    for held in portfolio:
        desk.close(held, "again")
    desk.until_status("closed", portfolio)
    desk.assert_closed_once(portfolio)


def test_what_is_halted_is_shown_to_operators_over_rest_too(desk: Desk) -> None:
    answer = desk.http.get("/v1/operator/trading-controls")
    assert answer.status_code == httpx.codes.OK, answer.text
    assert [(one["scope"], one["state"]) for one in answer.json()["controls"]][:1] == [("global", "active")]
