"""What close-api tells a viewer beside the topics, asked with the viewer's own token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from close_board.close_api import Away, CloseApi, Refused
from close_board.read_model import Close
from close_board.viewers import Viewer
from closeflow.clock import utc_now
from closeflow.domain.enums import RequestStatus, Side

INCIDENTS_SHOWN: Final = 50
WAITS_ASKED: Final = 300
"""Of closes that are not over, the oldest are asked about."""
Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a close waits for, as close-api decides it; `close` is the close as its database has it."""

    close: Close
    waits_for: str
    says: str
    since: datetime
    stuck_from: datetime
    owner: str
    next_step: str | None
    next_at: datetime | None
    command: str


@dataclass(frozen=True, slots=True)
class Told:
    """`waits` are by close. `away` says why there is no newer answer than this one; `at` is when it was given."""

    at: datetime | None = None
    lights: Sequence[Members] = ()
    incidents: Sequence[Members] = ()
    more_incidents: bool = False
    waits: Mapping[UUID, Wait] = field(default_factory=dict)
    controls: Sequence[Members] = ()
    away: str | None = None


async def ask(
    api: CloseApi, viewer: Viewer, before: Told, *, account: str | None = None, close_id: UUID | None = None
) -> Told:
    """Everything at once, of all the viewer's accounts, of one, or about one close. Where close-api does not answer,
    what it said before stays, and is said to be old."""
    narrowed = {} if account is None else {"account": account}
    about = {"page_size": str(WAITS_ASKED)} if close_id is None else {"close_request": str(close_id)}
    try:
        status, incidents, waits, controls = await asyncio.gather(
            api.get(viewer.token, "/v1/status"),
            api.get(viewer.token, "/v1/incidents", page_size=str(INCIDENTS_SHOWN), **narrowed),
            api.get(viewer.token, "/v1/close-requests:waiting", **narrowed, **about),
            _controls(api, viewer),
        )
        return Told(
            at=utc_now(),
            lights=status["lights"],
            incidents=incidents["incidents"],
            more_incidents=bool(incidents["next_page_token"]),
            waits={one.close.id: one for one in map(_wait, waits["waiting"])},
            controls=controls,
        )
    except Away as error:
        why = str(error)
    except Refused as error:
        why = f"close-api refused it: {error.detail}"
    except (KeyError, ValueError) as error:
        why = f"close-api's answer is not its own: {error}"
    return Told(before.at, before.lights, before.incidents, before.more_incidents, before.waits, before.controls, why)


async def _controls(api: CloseApi, viewer: Viewer) -> Sequence[Members]:
    """The switches, for those who may set them; not there where close-api serves no operators."""
    if not viewer.may_operate:
        return ()
    try:
        controls: Sequence[Members] = (await api.get(viewer.token, "/v1/operator/trading-controls"))["controls"]
    except Refused as error:
        if error.status == 404:
            return ()
        raise
    return controls


def _wait(told: Members) -> Wait:
    at = datetime.fromisoformat(told["created_at"])
    since = datetime.fromisoformat(told["since"])
    close = Close(
        id=UUID(told["close_request_id"]),
        position_id=told["position_id"],
        account=told["account_id"],
        symbol=told["symbol"],
        side=Side(told["side"]),
        target=Decimal(str(told["target_qty"])),
        filled=Decimal(str(told["filled_qty"])),
        status=RequestStatus(told["close_request_status"]),
        reason=told["reason"],
        accepted_at=at,
        changed_at=since,
    )
    return Wait(
        close=close,
        waits_for=told["waits_for"],
        says=told["says"],
        since=since,
        stuck_from=datetime.fromisoformat(told["stuck_from"]),
        owner=told["owner"],
        next_step=told["next_step"],
        next_at=None if told["next_at"] is None else datetime.fromisoformat(told["next_at"]),
        command=told["command"],
    )
