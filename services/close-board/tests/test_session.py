"""Who is let in, and which forms are taken, of the application without a close-api that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import httpx
import pytest
from records import close_id, position

from close_board.app import Site, build_app
from close_board.close_api import open_close_api
from close_board.live import Live
from close_board.progress import Progress
from close_board.read_model import ReadModel
from close_board.render import Pages
from close_board.session import COOKIE, csrf_of
from close_board.viewers import Viewer, Viewers
from closeflow.tls import SYSTEM_AUTHORITIES

TOKEN: Final = "known"
CLOSE: Final = f"/closes/{close_id(1)}"


class Known(Viewers):
    """Knows one token, whose close-api does not answer now."""

    def __init__(self, viewers: Viewers, viewer: Viewer) -> None:
        self.viewers, self.viewer = viewers, viewer

    async def admit(self, token: str) -> Viewer:
        return self.viewer if token == TOKEN else await self.viewers.admit(token)


@asynccontextmanager
async def browsing(
    *, may_operate: bool = True, accounts: frozenset[str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has logged in; nothing listens where close-api should."""
    model = ReadModel()
    model.apply(position(1, symbol="SECRET"))
    async with open_close_api("http://127.0.0.1:1", SYSTEM_AUTHORITIES) as api:
        viewers = Known(Viewers(api), Viewer(TOKEN, "ann", accounts, may_operate))
        pages, stop = Pages("test"), asyncio.Event()
        live = Live(model, Progress(), viewers, api, pages, timedelta(seconds=1), timedelta(seconds=1), 1.0, stop)
        app = build_app(Site(live, viewers, api, pages, secure=False, max_viewers=2))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://board", cookies={COOKIE: TOKEN}) as client:
            yield client


FORM: Final = {"csrf": csrf_of(TOKEN), "reason": "why"}
PAGES: Final = (
    "/",
    "/events",
    CLOSE,
    f"{CLOSE}/events",
    f"{CLOSE}/retry",
    "/controls?scope=global",
    "/incidents/7/close",
)


@pytest.mark.parametrize("path", PAGES)
async def test_nothing_is_shown_without_a_token(path: str) -> None:
    async with browsing() as client:
        client.cookies.clear()
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"], answer.content) == (303, "/login", b"")
        client.cookies.set(COOKIE, "another")
        answer = await client.get(path)
    assert answer.status_code == 503  # close-api alone knows whose it is, and does not answer.
    assert "SECRET" not in answer.text


@pytest.mark.parametrize("path", PAGES[2:])
async def test_what_is_of_other_accounts_is_not_there(path: str) -> None:
    async with browsing(accounts=frozenset({"B"}), may_operate=False) as client:
        assert (await client.get(path)).status_code == 404
        page = await client.get("/")
    assert "SECRET" not in page.text


async def test_the_page_is_shown_while_close_api_does_not_answer_and_says_so() -> None:
    async with browsing() as client:
        page = await client.get("/")
        close = await client.get(CLOSE)
    assert (page.status_code, close.status_code) == (200, 200)
    for shown in (page, close):
        assert "SECRET" in shown.text
        assert "close-api does not answer" in shown.text
        assert 'class="as-of old"' in shown.text


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"reason": "why"}, {}),
        ({"reason": "why", "csrf": csrf_of("another")}, {}),
        (FORM, {"origin": "http://elsewhere"}),
        (FORM, {"sec-fetch-site": "cross-site"}),
        ({**FORM, "reason": "x" * 20_000}, {}),
    ],
    ids=["no csrf", "another's csrf", "another origin", "cross-site", "too large"],
)
@pytest.mark.parametrize("path", [f"{CLOSE}/retry", "/controls?scope=global", "/incidents/7/close", "/logout"])
async def test_a_form_that_is_not_the_viewers_does_nothing(
    path: str, form: dict[str, str], headers: dict[str, str]
) -> None:
    async with browsing() as client:
        answer = await client.post(path, data=form, headers=headers)
    assert answer.status_code == 400
    assert "Nothing was done" in answer.text


async def test_a_form_without_a_reason_is_shown_again() -> None:
    async with browsing() as client:
        answer = await client.post(f"{CLOSE}/retry", data={**FORM, "reason": "  "})
        assert (answer.status_code, "Give a reason" in answer.text) == (400, True)
        answer = await client.post("/controls?scope=global", data={**FORM, "state": "off"})
        assert (answer.status_code, "Say what may be sent" in answer.text) == (400, True)


async def test_what_became_of_an_action_is_not_guessed() -> None:
    async with browsing() as client:
        answer = await client.post(f"{CLOSE}/retry", data=FORM)
    assert answer.status_code == 409
    assert "it may have been" in answer.text


async def test_who_only_reads_has_no_form() -> None:
    async with browsing(may_operate=False) as client:
        assert (await client.get(f"{CLOSE}/abandon")).status_code == 404
        assert (await client.post(f"{CLOSE}/retry", data={**FORM, "reason": " "})).status_code == 404
        assert (await client.get(f"{CLOSE}/cancel")).status_code == 200  # For who may close: close-api knows.
        page = await client.get(CLOSE)
    assert "act-retry" not in page.text


async def test_every_answer_forbids_what_a_page_does_not_need() -> None:
    async with browsing() as client:
        for path in ("/", "/login", "/static/board.js", "/nowhere", "/static/../app.py"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


async def test_a_login_needs_a_token_of_a_size_that_a_browser_keeps() -> None:
    async with browsing() as client:
        for token in ("", "é", "x" * 4000):
            assert (await client.post("/login", data={"token": token})).status_code == 400
        answer = await client.post("/login", data={"token": f" {TOKEN}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie == f"{COOKIE}={TOKEN}; HttpOnly; Path=/; SameSite=strict"
