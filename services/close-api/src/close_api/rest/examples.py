"""The answers of the OpenAPI's examples, written by what writes those of the service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from close_api.errors import Code, Problem
from close_api.rest.documented import TRACE_ID
from close_api.rest.problems import problem_members
from close_api.rest.responses import close_members, plan_members, position_members
from closeflow.domain.close.accept import Accepted, CloseCommand, accept_close
from closeflow.domain.frozen import replace
from closeflow.domain.model import AssetType, Book, CloseRequest, Position, PositionStatus, RequestStatus
from closeflow.domain.trading_controls import TradingState

_NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
_POSITION: Final = Position(
    id=4711,
    account_id="ACC-1",
    symbol="AAPL260619C00200000",
    asset_type=AssetType.OPTION,
    multiplier=Decimal(100),
    currency="USD",
    opening_quantity=Decimal(10),
    quantity=Decimal(10),
    status=PositionStatus.OPEN,
    version=3,
)
_COMMAND: Final = CloseCommand(
    request_id=UUID("01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20"),
    position_id=4711,
    idempotency_key="rebalance-2026-03-02/4711",
    requested_by="portfolio",
)


def _accepted() -> tuple[CloseRequest, Position]:
    book = Book(position=_POSITION, base_quantity=Decimal(10), ledger_quantity=Decimal(10))
    accepted = accept_close(book, _COMMAND, None, trading=TradingState.ACTIVE, now=_NOW)
    assert isinstance(accepted, Accepted)
    return accepted.request, accepted.book.position


def _working() -> tuple[CloseRequest, Position]:
    request, position = _accepted()
    submitted = replace(
        request,
        status=RequestStatus.SUBMITTED,
        filled_quantity=Decimal(4),
        submitted_at=_NOW + timedelta(milliseconds=180),
    )
    return submitted, replace(position, quantity=Decimal(6), version=5)


def _completed() -> tuple[CloseRequest, Position]:
    request, position = _working()
    at = _NOW + timedelta(seconds=2)
    completed = replace(
        request, status=RequestStatus.COMPLETED, filled_quantity=request.target_quantity, completed_at=at
    )
    closed = replace(
        position,
        status=PositionStatus.CLOSED,
        quantity=Decimal(0),
        active_close_request_id=None,
        closed_at=at,
        version=6,
    )
    return completed, closed


def _shown(members: Mapping[str, object]) -> dict[str, Any]:
    """As callers read it."""
    shown: dict[str, Any] = json.loads(orjson.dumps(members))
    return shown


_ACCEPTED: Final = _shown(close_members(*_accepted()))
_WORKING: Final = _shown(close_members(*_working()))
_COMPLETED: Final = _shown(close_members(*_completed()))
_PLANNED: Final = _shown(plan_members(*_accepted()))
_ID: Final = str(_COMMAND.request_id)
_EVENT: Final = "id: {id}\nevent: close_request\ndata: {data}\n\n"
_ANSWERS_OF_CLOSE: Final = {
    "201": {"accepted": _ACCEPTED},
    "200": {"replayed": _WORKING, "dry run": _PLANNED},
}
_BATCH: Final = {
    "results": [
        {
            "position_id": 4711,
            "idempotency_key": "rebalance-2026-03-02/4711",
            "status": 201,
            "replayed": False,
            "close_request": _ACCEPTED,
        },
        {
            "position_id": 4712,
            "idempotency_key": "rebalance-2026-03-02/4712",
            "status": 404,
            "replayed": False,
            "error": _shown(problem_members(Problem(Code.NOT_FOUND), TRACE_ID)),
        },
    ]
}
ANSWERS: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "close_position": _ANSWERS_OF_CLOSE,
    "close_option": _ANSWERS_OF_CLOSE,
    "batch_close": {"200": {"one accepted, one not found": _BATCH}},
    "cancel_close_request": {"200": {"its order is being cancelled": _WORKING}},
    "get_close_request": {"200": {"partly filled": _WORKING, "over": _COMPLETED}},
    "list_close_requests": {"200": {"the last page": {"close_requests": [_COMPLETED], "next_page_token": ""}}},
    "get_position": {"200": {"being closed": _shown(position_members(_working()[1]))}},
    "list_positions": {
        "200": {"the last page": {"positions": [_shown(position_members(_POSITION))], "next_page_token": ""}}
    },
    "watch_close_request": {
        "200": {
            "to its end": "".join(
                _EVENT.format(id=n, data=json.dumps(one)) for n, one in enumerate((_WORKING, _COMPLETED), 7)
            )
        }
    },
    "get_timeline": {
        "200": {
            "its beginning": {
                "close_request_id": _ID,
                "timeline": [
                    {
                        "at": _ACCEPTED["created_at"],
                        "source": "status_history",
                        "what": "close_request pending",
                        "detail": {"entity_id": _ID, "reason": None, "by": "close-api"},
                    }
                ],
            }
        }
    },
}
"""By operation and status, named."""
