"""The pictures of docs/board.md: `python -m tests.board_pictures` makes trouble on the instance `pictures`, looks, and
writes docs/board/*.png."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, expect

import devstack
from broker_simulator.control import AcceptSilently, Behaviour, FillThen, MarketHours, RunSteps, Step, StreamFaults
from demo.system import BOARD, SIMULATOR, System
from tests.browser import PATIENCE_MS, browsing, launched
from tests.system.desk import Desk

HERE: Final = Path(__file__).resolve().parents[1] / "docs" / "board"
expect.set_options(timeout=PATIENCE_MS)
WIDE: Final = {"width": 1180, "height": 860}
NARROW: Final = {"width": 390, "height": 844}


def trouble(desk: Desk) -> str:
    """Some closes that are done, and one of each way to be stuck; gives the one that the broker has suspended."""
    done = desk.hold_all([(10, "stock")] * 12)
    quoteless = desk.hold("1.5", "crypto")
    unanswered, suspended, at_night, partly = desk.hold_all([(25, "stock")] * 4)
    for held in done:
        desk.close(held)
    desk.until_status("closed", done)
    desk.control.withhold_quote(quoteless.symbol)
    silent = Behaviour(answer=AcceptSilently(), stream=StreamFaults(lose=True), visible_after_s=600)
    desk.control.script(silent, symbol=unanswered.symbol)
    desk.control.script(
        Behaviour(execution=RunSteps(steps=(Step(do="suspend"),))),
        symbol=suspended.symbol,
    )
    desk.control.script(Behaviour(execution=FillThen(quantity=9, then="rest")), symbol=partly.symbol)
    desk.close(quoteless)
    desk.close(unanswered)
    desk.close(partly)
    shown = desk.close(suspended, body={"reason": "rebalance of 2 March"})
    for held in (unanswered, suspended, partly):
        desk.until("its order is at the broker", partial(desk.at_broker, held))
    opens_at = datetime.now(UTC) + timedelta(minutes=47)
    desk.control.set_hours(MarketHours(is_open=False, next_open=opens_at))
    desk.close(at_night)
    return shown


def take(page: Page, name: str) -> None:
    """Write the picture, once the ages are counted."""
    page.wait_for_timeout(1200)
    page.screenshot(path=HERE / f"{name}.png")


def main() -> None:
    """Make the trouble and take every picture."""
    HERE.mkdir(exist_ok=True)
    stack = devstack.up("pictures", print)
    overrides = {BOARD: {"INSTANCE": "desk London"}, "order-submitter": {"HTTP_DEADLINE_S": "2", "CLOCK_REUSE_S": "0"}}
    system = System(stack, "closeflow_pictures", stack.data_dir / "services", print, overrides)
    system.directory.mkdir(parents=True, exist_ok=True)
    system.wipe()
    system.prepare()
    try:
        system.start(SIMULATOR)
        system.start_all()
        system.start(BOARD)
        with Desk(system) as desk:
            look(system, trouble(desk))
    finally:
        system.close()
        system.wipe()
        devstack.down("pictures", print)


def look(system: System, close: str) -> None:
    """The board in light and dark, on a telephone, a close, and what is asked before something is done."""
    with launched() as browser:
        shown: dict[str, dict[str, Any]] = {
            "board": {"viewport": WIDE},
            "board-dark": {"viewport": WIDE, "color_scheme": "dark"},
            "board-narrow": {"viewport": NARROW},
        }
        for name, given in shown.items():
            with browsing(browser, **given) as context:
                page = context.new_page()
                page.goto(system.board_login())
                expect(page.locator(".light.green")).to_have_count(6, timeout=150_000)
                for kind in ("broker", "market_hours", "quote", "unknown_outcome"):
                    expect(page.locator(f"#stuck .waits.{kind}").first, page.inner_text("#stuck")).to_be_visible()
                take(page, name)
                if name == "board":
                    page.click(f"#open-{close}")
                    expect(page.locator("#timeline li").nth(8)).to_be_visible()
                    take(page, "close")
                    page.click("#act-cancel")
                    page.fill("#reason", "the broker says that the symbol stays suspended today")
                    take(page, "cancel")


if __name__ == "__main__":
    main()
