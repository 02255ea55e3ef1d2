"""The pages. Nothing is shown to whoever has no token that close-api takes, and nothing is done but through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final
from urllib.parse import quote

import structlog
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from close_board.acting import Acting
from close_board.close_api import Away, CloseApi
from close_board.close_page import ClosePages
from close_board.live import Live
from close_board.render import Pages
from close_board.session import (
    COOKIE,
    HEADERS,
    LARGEST_TOKEN,
    BadForm,
    check_csrf,
    csrf_of,
    forget_token,
    keep_token,
    read_form,
)
from close_board.viewers import NotAdmitted, Viewer, Viewers

log = structlog.get_logger(__name__)

_FILES: Final = {"board.js": "text/javascript; charset=utf-8", "board.css": "text/css; charset=utf-8"}
_LONGEST_ACCOUNT: Final = 128


@dataclass(slots=True)
class Site:
    """`secure` is whether it is served over TLS: then the cookie is sent over nothing else."""

    live: Live
    viewers: Viewers
    api: CloseApi
    pages: Pages
    secure: bool
    max_viewers: int
    streams: int = 0

    async def viewer(self, request: Request) -> Viewer:
        """Whose cookie it is. Raises NotAdmitted, with no text where there is none, and Away."""
        token = request.cookies.get(COOKIE)
        if not token:
            raise NotAdmitted("")
        return await self.viewers.admit(token)

    async def board(self, request: Request) -> Response:
        """The page."""
        viewer, account = await self.viewer(request), _account(request)
        screen = await self.live.first(viewer, account)
        return HTMLResponse(self.pages.board(screen, csrf_of(viewer.token)))

    async def events(self, request: Request) -> Response:
        """What changes on it."""
        viewer, account = await self.viewer(request), _account(request)
        return self.stream(self.live.of_board(viewer.token, account))

    def stream(self, events: AsyncIterator[bytes]) -> Response:
        """Server-sent events, to no more pages at a time than are allowed."""
        if self.streams >= self.max_viewers:
            return PlainTextResponse("There are too many pages open; close some.", 503, {"retry-after": "10"})

        async def counted() -> AsyncIterator[bytes]:
            self.streams += 1
            try:
                async for event in events:
                    yield event
            finally:
                self.streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")

    async def show_login(self, request: Request) -> Response:
        """The form."""
        return HTMLResponse(self.pages.page("login.html", wrong=None))

    async def log_in(self, request: Request) -> Response:
        """Keep the token, if close-api takes it."""
        token = "".join((await read_form(request)).get("token", "").split()).removeprefix("Bearer")
        if not token or len(token) > LARGEST_TOKEN or not token.isascii():
            wrong = f"That is no token: it has 1 to {LARGEST_TOKEN} characters of ASCII."
            return HTMLResponse(self.pages.page("login.html", wrong=wrong), 400)
        await self.viewers.admit(token)
        answer = RedirectResponse("/", 303)
        keep_token(answer, token, secure=self.secure)
        return answer

    async def log_out(self, request: Request) -> Response:
        """Forget it."""
        check_csrf(await read_form(request), request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/login", 303)
        forget_token(answer, secure=self.secure)
        return answer

    async def on_not_admitted(self, request: Request, error: Exception) -> Response:
        """The form instead of anything else, and why."""
        if request.method == "GET" and not str(error):
            return RedirectResponse("/login", 303)
        answer = HTMLResponse(self.pages.page("login.html", wrong=str(error) or "Log in first."), 403)
        forget_token(answer, secure=self.secure)
        return answer

    async def on_away(self, request: Request, error: Exception) -> Response:
        """Nobody new can be admitted."""
        said = f"{error}, and it alone knows who may see closes. This is tried again when you load the page anew."
        page = self.pages.page("said.html", heading="Not now", said=said, bad=True, back=quote(request.url.path))
        return HTMLResponse(page, 503, {"retry-after": "2"})

    async def on_bad_form(self, request: Request, error: Exception) -> Response:
        """Nothing was done."""
        page = self.pages.page("said.html", heading="Nothing was done", said=str(error), bad=True, back="/")
        return HTMLResponse(page, 400)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """An address that is not there, or not the viewer's: the same answer for both."""
        assert isinstance(error, HTTPException)
        said = "There is no such page, or it is not of your accounts."
        page = self.pages.page("said.html", heading="Not found", said=said, bad=True, back="/")
        return HTMLResponse(page, error.status_code)


def build_app(site: Site) -> ASGIApp:
    """Every route, and the headers that every answer has."""
    app = FastAPI(
        title="close-board",
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            NotAdmitted: site.on_not_admitted,
            Away: site.on_away,
            BadForm: site.on_bad_form,
            HTTPException: site.on_http_error,
        },
    )
    closes, acting = ClosePages(site.live, site.api, site.pages), Acting(site.api, site.pages)

    def add(method: str, path: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        async def endpoint(request: Request) -> Response:
            return await answer(request)

        app.add_api_route(path, endpoint, methods=[method], response_model=None, include_in_schema=False)

    def seen(answer: Callable[[Request, Viewer], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def with_viewer(request: Request) -> Response:
            return await answer(request, await site.viewer(request))

        return with_viewer

    add("GET", "/login", site.show_login)
    add("POST", "/login", site.log_in)
    add("POST", "/logout", site.log_out)
    add("GET", "/", site.board)
    add("GET", "/events", site.events)
    add("GET", "/static/{name}", _static)
    add("GET", "/closes/{close_id}", seen(closes.page))
    add("GET", "/closes/{close_id}/events", seen(lambda request, viewer: closes.events(request, viewer, site.stream)))
    for method, do in (("GET", acting.ask), ("POST", acting.act)):
        add(method, "/closes/{close_id}/{name}", seen(do))
    for method, do in (("GET", acting.ask_control), ("POST", acting.set_control)):
        add(method, "/controls", seen(do))
    for method, do in (("GET", acting.ask_incident), ("POST", acting.close_incident)):
        add(method, "/incidents/{incident_id}/close", seen(do))
    return _Guarded(app)


class _Guarded:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._app(scope, receive, guarded)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        raise HTTPException(404)
    return Response((files("close_board") / "static" / name).read_bytes(), media_type=_FILES[name])


def _account(request: Request) -> str | None:
    """What the page is narrowed to; one that is not the viewer's shows nothing."""
    given = request.query_params.get("account", "")[:_LONGEST_ACCOUNT].strip()
    return given or None
