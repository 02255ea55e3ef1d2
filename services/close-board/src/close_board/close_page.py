"""The page of one close: its state, what it waits for, its incidents, and every fact about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from close_board.actions import actions_for
from close_board.asked import Told, ask
from close_board.close_api import Away, CloseApi, Refused
from close_board.live import ASKED_EVERY_S, Live, Parts
from close_board.read_model import Close
from close_board.render import Pages
from close_board.session import csrf_of
from close_board.viewers import Viewer
from closeflow.clock import monotonic
from closeflow.domain.enums import RequestStatus, Side

Facts = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ClosePages:
    """Of closes that the viewer's accounts have; any other is not there."""

    live: Live
    api: CloseApi
    pages: Pages

    async def page(self, request: Request, viewer: Viewer) -> Response:
        """The page as it is now."""
        close = await self._close(request, viewer)
        told, facts, away = await self._asked(viewer, close, Told(), ())
        left = self._is_left(close)
        return HTMLResponse(
            self.pages.close(
                close,
                self._parts(close, told, facts, away, viewer),
                viewer=viewer,
                csrf=csrf_of(viewer.token),
                fresh=self.live.fresh(told),
                actions=actions_for(close, left=left, may_operate=viewer.may_operate),
            )
        )

    async def events(
        self, request: Request, viewer: Viewer, stream: Callable[[AsyncIterator[bytes]], Response]
    ) -> Response:
        """What changes on it."""
        found = await self._close(request, viewer)
        told, facts, away, asked_at = Told(), (), None, float("-inf")  # type: Told, Facts, str | None, float

        async def parts(viewer: Viewer) -> Parts:
            nonlocal told, facts, away, asked_at
            close = self.live.model.closes.get(found.id, found)
            if monotonic() - asked_at >= ASKED_EVERY_S:
                told, facts, away = await self._asked(viewer, close, told, facts)
                asked_at = monotonic()
            made = self._parts(close, told, facts, away, viewer)
            return close.symbol, {**made, "as-of": self.pages.as_of(self.live.fresh(told))}, None

        return stream(self.live.follow(viewer.token, parts))

    async def _close(self, request: Request, viewer: Viewer) -> Close:
        try:
            close_id = UUID(request.path_params["close_id"])
        except ValueError:
            raise HTTPException(404) from None
        close = self.live.model.closes.get(close_id)
        if close is None:
            close = await self._of_api(viewer, close_id)
        elif not viewer.sees(close.account):
            raise HTTPException(404)
        return close

    async def _of_api(self, viewer: Viewer, close_id: UUID) -> Close:
        """One that the board does not count any more, or that is not published yet."""
        try:
            told = await self.api.get(viewer.token, f"/v1/close-requests/{close_id}")
            position = await self.api.get(viewer.token, f"/v1/positions/{told['position_id']}")
        except Refused:
            raise HTTPException(404) from None
        accepted = datetime.fromisoformat(told["created_at"])
        ended = told["completed_at"] or told["submitted_at"]
        return Close(
            id=close_id,
            position_id=told["position_id"],
            account=position["account_id"],
            symbol=told["symbol"],
            side=Side(told["side"]),
            target=Decimal(str(told["target_qty"])),
            filled=Decimal(str(told["filled_qty"])),
            status=RequestStatus(told["close_request_status"]),
            reason=told["reason"],
            accepted_at=accepted,
            changed_at=accepted if ended is None else datetime.fromisoformat(ended),
        )

    async def _asked(self, viewer: Viewer, close: Close, before: Told, facts: Facts) -> tuple[Told, Facts, str | None]:
        told = await ask(self.api, viewer, before, account=close.account or None, close_id=close.id)
        try:
            answer = await self.api.get(viewer.token, f"/v1/close-requests/{close.id}/timeline")
            return told, answer["timeline"], None
        except Away as error:
            return told, facts, str(error)
        except Refused as error:
            return told, facts, error.detail

    def _is_left(self, close: Close) -> bool:
        left = self.live.model.left.get(close.position_id)
        return left is not None and left.id == close.id

    def _parts(self, close: Close, told: Told, facts: Facts, away: str | None, viewer: Viewer) -> dict[str, str]:
        doubted = close.position_id in self.live.model.doubted
        return self.pages.of_close(close, told, facts, away, doubted=doubted, may_operate=viewer.may_operate)
