"""The board in a browser: what it shows is what the database has, and what is clicked on it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect

from broker_simulator.control import AcceptSilently, Behaviour, MarketHours, Reject, RunSteps, Step, StreamFaults
from closectl.development_key import Scope
from demo.system import BOARD, System
from tests.browser import PATIENCE_MS, browsing, launched
from tests.system.desk import Desk, Held

expect.set_options(timeout=PATIENCE_MS)
OVER: Final = "SELECT count(*) FROM close_requests WHERE status = 'completed'"
OPEN: Final = "SELECT count(*) FROM close_requests WHERE status IN ('pending', 'submitted', 'retryable')"


@pytest.fixture(scope="module")
def board(system: System) -> Iterator[System]:
    """It runs for this module alone: the others need no board."""
    system.start(BOARD)
    yield system
    assert system.stop(BOARD) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture
def page(board: System, browser: Browser) -> Iterator[Page]:
    """The board, by the address that is printed for people."""
    with browsing(browser) as context:
        made = context.new_page()
        made.goto(board.board_login())
        expect(made.locator("h1")).to_have_text("What is not closing")
        assert "token" not in made.url
        yield made


def count(page: Page, stage: str) -> int:
    return int(page.locator(f"[data-stage='{stage}']").inner_text())


def row(page: Page, request: str) -> str:
    return page.locator(f"#close-{request}").inner_text()


def shown_as_waiting(page: Page, request: str, waits_for: str) -> None:
    expect(page.locator(f"#close-{request} .waits")).to_have_text(waits_for.replace("_", " "))


def gone(page: Page, *requests: str) -> None:
    for request in requests:
        expect(page.locator(f"#close-{request}")).to_have_count(0)


def act(page: Page, reason: str) -> str:
    """On a page that says what will be done: give the reason, and do it."""
    expect(page.locator("main")).to_contain_text("It will not")
    page.fill("#reason", reason)
    page.click("#confirm")
    said = page.locator("#said").inner_text()
    page.click("#back")
    return said


def set_trading(page: Page, board: System, state: str, reason: str) -> None:
    page.goto(board.board_url())
    page.click("#halt-1")
    page.check(f"input[value={state}]")
    assert state in act(page, reason)


def test_fifty_closes_are_counted_as_the_database_counts_them(
    desk: Desk, page: Page, record_property: Callable[[str, object], None]
) -> None:
    portfolio = desk.hold_all([(10, "stock")] * 50)
    completed, before = count(page, "completed"), desk.count(OVER)
    for held in portfolio[:25]:
        desk.control.script(
            Behaviour(execution=RunSteps(steps=(Step(do="fill", quantity=4), Step(do="fill", after_s=3)))),
            symbol=held.symbol,
        )
    for held in portfolio:
        desk.close(held)

    def as_far(done: int) -> Callable[[], bool]:
        return lambda: count(page, "completed") - completed >= done

    late_s = []
    while (done := desk.count(OVER) - before) < len(portfolio):
        at = time.monotonic()
        desk.until("the board is as far", as_far(done))
        late_s.append(time.monotonic() - at)
        time.sleep(0.05)
    desk.until("the board is as far", as_far(len(portfolio)))
    assert count(page, "completed") - completed == len(portfolio)
    expect(page.locator("#open-total")).to_have_text(str(desk.count(OPEN)))
    record_property("behind_s", max(late_s, default=0.0))
    desk.assert_closed_once(portfolio)


def test_a_close_that_waits_is_shown_with_its_reason_until_it_goes_on(desk: Desk, page: Page) -> None:
    """For a quote, for the market, for an answer that never came, and for a broker that suspends its order."""
    quoteless, unanswered, suspended, at_night = desk.hold_all([(10, "stock")] * 4)
    desk.control.withhold_quote(quoteless.symbol)
    silent = Behaviour(answer=AcceptSilently(), stream=StreamFaults(lose=True), visible_after_s=9)
    desk.control.script(silent, symbol=unanswered.symbol)
    desk.control.script(Behaviour(execution=RunSteps(steps=(Step(do="suspend"),))), symbol=suspended.symbol)
    waiting = {
        desk.close(unanswered): "unknown_outcome",
        desk.close(quoteless): "quote",
        (to_cancel := desk.close(suspended)): "broker",
    }
    for request, waits_for in waiting.items():
        shown_as_waiting(page, request, waits_for)
    assert "0 of 10" in row(page, to_cancel)
    assert "has suspended its order" in row(page, to_cancel)
    opens_at = datetime.now(UTC) + timedelta(seconds=40)
    desk.control.set_hours(MarketHours(is_open=False, next_open=opens_at))
    try:
        night = desk.close(at_night)
        shown_as_waiting(page, night, "market_hours")
        assert "market" in row(page, night)
        assert "in " in page.locator(f"#close-{night} [data-due]").inner_text()
        desk.until_status("closed", [at_night], within_s=120)
    finally:
        desk.control.set_hours(MarketHours())
    desk.control.pin_quote(quoteless.symbol, "99.95", "100.05")
    cancelled_by_clicking(desk, page, suspended, to_cancel)
    desk.until_status("closed", [quoteless, unanswered])
    gone(page, *waiting, night)


def cancelled_by_clicking(desk: Desk, page: Page, held: Held, request: str) -> None:
    page.click(f"#open-{request}")
    expect(page.locator("#timeline")).to_contain_text("submit sent (1)")
    page.click("#act-cancel")
    act(page, "<script>document.title = 'evil'</script> & 'quoted'")
    expect(page.locator("#status")).to_contain_text("failed, canceled by user")
    expect(page.locator("#timeline")).to_contain_text("<script>document.title = 'evil'</script>")
    desk.until_status("open", [held])
    assert [one["status"] for one in desk.orders(held)] == ["canceled"]
    (kept,) = desk.rows("SELECT by, reason FROM operator_actions WHERE subject = %s", request)
    assert kept == {"by": "demo", "reason": "<script>document.title = 'evil'</script> & 'quoted'"}
    page.goto(desk.system.board_url())


def test_a_close_is_halted_retried_and_released_by_clicking(desk: Desk, page: Page) -> None:
    held = desk.hold(10)
    refused = Reject(status=403, code=40310000, message="price is outside of the price band")
    desk.control.script(Behaviour(answer=refused), symbol=held.symbol)
    request = desk.close(held)
    shown_as_waiting(page, request, "market_hours")
    board = desk.system
    set_trading(page, board, "halted", "<b>prices are wrong</b>")
    try:
        expect(page.locator(".light.red")).to_contain_text("global is halted")
        shown_as_waiting(page, request, "operator")
        desk.until("it is retryable", lambda: desk.request(request)["status"] == "retryable")
        desk.control.clear_script()
        attempt = desk.request(request)["attempt"]
        page.click(f"#open-{request}")
        page.click("#act-retry")
        assert act(page, "the band is wider now") == f"pending: attempt {attempt + 1}"
        assert desk.request(request)["status"] == "pending"
    finally:
        set_trading(page, board, "active", "they are right again")
    expect(page.locator(".light.red")).to_have_count(0)
    desk.until_status("closed", [held])
    gone(page, request)
    actions = desk.rows("SELECT action, by FROM operator_actions ORDER BY id DESC LIMIT 3")
    assert [(one["action"], one["by"]) for one in actions] == [("release", "demo"), ("retry", "demo"), ("halt", "demo")]


def test_an_incident_is_shown_as_text_and_closed_by_clicking(desk: Desk, page: Page) -> None:
    detail = '{"text": "<img src=x onerror=alert(1)> at the broker", "subject": "<b>nobody</b>"}'
    insert = (
        "INSERT INTO incidents (kind, severity, detail) VALUES ('foreign_order', 'warning', %s::jsonb) RETURNING id"
    )
    (made,) = desk.rows(insert, detail)
    told = page.locator(f"#incident-{made['id']}")
    expect(told).to_contain_text("<b>nobody</b>: <img src=x onerror=alert(1)> at the broker")
    assert told.locator("img").count() == 0
    page.click(f"#close-incident-{made['id']}")
    assert act(page, "seen with the broker") == f"incident {made['id']} (foreign_order) is closed"
    expect(told).to_have_count(0)
    desk.expected_incidents = ["foreign_order"]


def test_nothing_is_shown_to_whoever_may_not_read(desk: Desk, board: System, browser: Browser) -> None:
    held = desk.hold(10)
    desk.control.withhold_quote(held.symbol)
    request = desk.close(held)
    tokens = {
        scope: board.token(subject="somebody", accounts=accounts, scopes=[scope])
        for scope, accounts in ((Scope.OPERATE, None), (Scope.READ, ["elsewhere"]))
    }
    with browsing(browser) as context:
        page = context.new_page()
        page.goto(f"{board.board_url()}/closes/{request}")
        expect(page).to_have_url(f"{board.board_url()}/login")
        for token, said in (("no.token.at-all", "token"), (tokens[Scope.OPERATE], "close:read")):
            page.fill("#token", token)
            page.click("#login button")
            expect(page.locator("[role=alert]")).to_contain_text(said)
            assert held.symbol not in page.content()
        page.fill("#token", tokens[Scope.READ])
        page.click("#login button")
        expect(page.locator(".accounts")).to_have_text("account elsewhere")
        expect(page.locator("#stuck-said")).to_have_text("No close is stuck.")
        expect(page.locator("#open-total")).to_have_text("0")
        assert page.goto(f"{board.board_url()}/closes/{request}").status == 404  # type: ignore[union-attr]
        assert held.symbol not in page.content()
    desk.control.pin_quote(held.symbol, "99.95", "100.05")
    desk.until_status("closed", [held])


def test_a_killed_board_shows_the_same_again(desk: Desk, board: System, page: Page) -> None:
    held = desk.hold(10)
    desk.control.withhold_quote(held.symbol)
    request = desk.close(held)
    shown_as_waiting(page, request, "quote")
    desk.until("all is counted", lambda: page.locator("#open-total").inner_text() == "1")

    def looks() -> tuple[list[str], str]:
        numbers = page.locator("[data-stage]").all_inner_texts()
        return numbers, page.locator(f"#close-{request} .waits").inner_text()

    before = looks()
    board.kill(BOARD)
    expect(page.locator("html.cut-off")).to_have_count(1)  # It says that it hears nothing.
    board.start(BOARD)
    expect(page.locator("html.cut-off")).to_have_count(0)  # The page that was open goes on by itself.
    desk.until("it is as before", lambda: looks() == before)
    desk.control.pin_quote(held.symbol, "99.95", "100.05")
    desk.until_status("closed", [held])
    gone(page, request)
