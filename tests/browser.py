"""A real browser without a screen: Debian's Chromium, which `make install-browser` brings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright

PATIENCE_MS: Final = 90_000.0
NAMES: Final = ("chromium", "google-chrome")


def chromium() -> str:
    """Where it is; where it is not, the test is skipped, which is a failure in CI."""
    found = next((path for name in NAMES if (path := shutil.which(name)) is not None), None)
    if found is None:
        pytest.skip("there is no Chromium; `make install-browser` brings it")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """One for many pages. Root may not have Chromium's sandbox; what is shown here is our own page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browsing(browser: Browser, **given: Any) -> Iterator[BrowserContext]:
    """A browser of somebody's own, in which no page may ask for anything elsewhere, report an error or open a dialog:
    each is a failure at the end. The certificates of a secure instance are of its own authority."""
    context = browser.new_context(ignore_https_errors=True, **given)
    context.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def on_console(said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            wrong.append(said.text)

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", on_dialog)
        page.on("console", on_console)

    context.on("page", watch)
    try:
        yield context
        assert wrong == []
    finally:
        context.close()
