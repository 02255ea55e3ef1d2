"""Ask before something is done, and have close-api do it, as the viewer and with the viewer's reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID

import structlog
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from close_board.actions import CLOSE_INCIDENT, CONTROL, OF_CLOSES, STATES, Action
from close_board.close_api import Away, CloseApi, Refused
from close_board.render import Pages
from close_board.session import check_csrf, csrf_of, read_form
from close_board.viewers import Viewer
from closeflow.domain.trading_controls import TradingState

_LONGEST_REASON: Final = 500
_LONGEST_SCOPE: Final = 128

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Acting:
    """Each has a page that says what it will and will not do; only its form does anything."""

    api: CloseApi
    pages: Pages

    async def ask(self, request: Request, viewer: Viewer) -> Response:
        """About a close."""
        action, close_id = _of_close(request)
        return self._form(
            viewer, action, f"close {close_id}", f"/closes/{close_id}/{action.name}", f"/closes/{close_id}"
        )

    async def act(self, request: Request, viewer: Viewer) -> Response:
        """About a close: once its form is sent."""
        action, close_id = _of_close(request)
        form = await self._sent(request, viewer)
        back = f"/closes/{close_id}"
        if (reason := _reason(form)) is None:
            return self._form(viewer, action, f"close {close_id}", f"{back}/{action.name}", back, wrong=_NO_REASON)
        return await self._do(viewer, action, str(close_id), {"reason": reason}, back)

    async def ask_control(self, request: Request, viewer: Viewer) -> Response:
        """About the kill switch."""
        return self._control(viewer, _scope(request))

    async def set_control(self, request: Request, viewer: Viewer) -> Response:
        """About the kill switch: once its form is sent."""
        scope, form = _scope(request), await self._sent(request, viewer)
        reason, state = _reason(form), form.get("state", "")
        if reason is None or state not in list(TradingState):
            return self._control(viewer, scope, wrong=_NO_REASON if reason is None else "Say what may be sent.")
        return await self._do(viewer, CONTROL, quote(scope, safe=""), {"state": state, "reason": reason}, "/")

    async def ask_incident(self, request: Request, viewer: Viewer) -> Response:
        """About an incident."""
        number = _number(request)
        return self._form(viewer, CLOSE_INCIDENT, str(number), f"/incidents/{number}/close", "/")

    async def close_incident(self, request: Request, viewer: Viewer) -> Response:
        """About an incident: once its form is sent."""
        number, form = _number(request), await self._sent(request, viewer)
        if (reason := _reason(form)) is None:
            target = f"/incidents/{number}/close"
            return self._form(viewer, CLOSE_INCIDENT, str(number), target, "/", wrong=_NO_REASON)
        return await self._do(viewer, CLOSE_INCIDENT, str(number), {"reason": reason}, "/")

    def _control(self, viewer: Viewer, scope: str, wrong: str | None = None) -> Response:
        target = f"/controls?scope={quote(scope, safe='')}"
        return self._form(viewer, CONTROL, f"what may be sent of {scope}", target, "/", wrong=wrong, states=STATES)

    def _form(
        self,
        viewer: Viewer,
        action: Action,
        what: str,
        target: str,
        back: str,
        *,
        wrong: str | None = None,
        states: tuple[tuple[TradingState, str], ...] = (),
    ) -> Response:
        if action.by_operator and not viewer.may_operate:
            raise HTTPException(404)
        page = self.pages.page(
            "action.html",
            viewer=viewer,
            csrf=csrf_of(viewer.token),
            action=action,
            what=what,
            target=target,
            back=back,
            wrong=wrong,
            states=states,
            chosen=None,
        )
        return HTMLResponse(page, 200 if wrong is None else 400)

    async def _sent(self, request: Request, viewer: Viewer) -> dict[str, str]:
        form = await read_form(request)
        check_csrf(form, viewer.token)
        return form

    async def _do(self, viewer: Viewer, action: Action, about: str, body: Mapping[str, object], back: str) -> Response:
        """One call, never repeated: what became of it is shown, or that it is not known."""
        try:
            told = await self.api.send(viewer.token, action.method, action.path.format(about), body)
            said, bad = str(told.get("what", f"{action.verb}: asked for")), False
            log.info("acted", action=action.name, about=about, by=viewer.subject)
        except Refused as error:
            said, bad = f"It was refused, and nothing was done: {error.detail}", True
        except Away as error:
            said, bad = f"{error}; look whether it was done before you do it again: it may have been", True
        page = self.pages.page(
            "said.html",
            viewer=viewer,
            csrf=csrf_of(viewer.token),
            heading=action.verb,
            said=said,
            bad=bad,
            back=back,
        )
        return HTMLResponse(page, 200 if not bad else 409)


_NO_REASON: Final = f"Give a reason, of at most {_LONGEST_REASON} characters."


def _of_close(request: Request) -> tuple[Action, UUID]:
    action = OF_CLOSES.get(request.path_params["name"])
    if action is None:
        raise HTTPException(404)
    try:
        return action, UUID(request.path_params["close_id"])
    except ValueError:
        raise HTTPException(404) from None


def _reason(form: Mapping[str, str]) -> str | None:
    reason = " ".join(form.get("reason", "").split())
    return reason if 1 <= len(reason) <= _LONGEST_REASON else None


def _scope(request: Request) -> str:
    scope = request.query_params.get("scope", "")
    if not 1 <= len(scope) <= _LONGEST_SCOPE or not scope.isprintable():
        raise HTTPException(404)
    return scope


def _number(request: Request) -> int:
    text: str = request.path_params["incident_id"]
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 18:
        raise HTTPException(404)
    return int(text)
