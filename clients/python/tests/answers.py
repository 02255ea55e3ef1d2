"""What close-api answers, as its contract says."""

from __future__ import annotations

import json
from typing import Any, Final

REQUEST_ID: Final = "0192f1c0-0000-7000-8000-000000000001"
ACTIVE_ID: Final = "0192f1c0-0000-7000-8000-000000000002"
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


def request_body(**changes: Any) -> dict[str, Any]:
    """A close request; `changes` are other values of its members, or further members."""
    return {
        "close_request_id": REQUEST_ID,
        "position_id": 7,
        "position_status": "closing",
        "close_request_status": "pending",
        "symbol": "AAPL",
        "side": "sell",
        "target_qty": 10,
        "filled_qty": 0,
        "remaining_qty": 10,
        "retry_count": 0,
        "created_at": "2026-03-02T15:00:00.000001Z",
        "submitted_at": None,
        "completed_at": None,
        "reason": None,
    } | changes


def position_body(**changes: Any) -> dict[str, Any]:
    """A position."""
    return {
        "position_id": 7,
        "account_id": "ACC",
        "symbol": "AAPL",
        "asset_type": "stock",
        "position_status": "open",
        "quantity": -10,
        "opening_qty": -10,
        "multiplier": 1,
        "currency": "USD",
        "exposure_unproven": False,
        "active_close_request_id": None,
        "closed_at": None,
        "version": 3,
    } | changes


def problem(code: str, status: int, **members: Any) -> dict[str, Any]:
    """A problem document."""
    return {
        "type": f"/docs/errors#{code}",
        "title": code,
        "status": status,
        "detail": f"It is {code}.",
        "code": code,
        "trace_id": TRACE_ID,
    } | members


def event(event_id: str, **changes: Any) -> bytes:
    """A server-sent event with a close request."""
    return f"id: {event_id}\nevent: close_request\ndata: {json.dumps(request_body(**changes))}\n\n".encode()
