"""What those who watch closes get in the OpenAPI's examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from close_api.rest.operator_examples import OPERATOR_ANSWERS

_REQUEST: Final = "01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20"
_AT: Final = "2026-03-02T15:00:00Z"
_WAIT: Final = {
    "close_request_id": _REQUEST,
    "position_id": 4711,
    "account_id": "ACC-1",
    "symbol": "AAPL260619C00200000",
    "side": "sell",
    "target_qty": 10,
    "filled_qty": 4,
    "close_request_status": "pending",
    "reason": "market_closed",
    "created_at": _AT,
    "waits_for": "market_hours",
    "says": "the market to open",
    "since": _AT,
    "stuck_from": _AT,
    "owner": "market",
    "next_step": "its order is planned again",
    "next_at": "2026-03-02T15:30:00Z",
    "command": f"closectl show {_REQUEST}",
}
OVERVIEW_ANSWERS: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "get_caller": {
        "200": {
            "of one account": {"subject": "desk", "accounts": ["ACC-1"], "scopes": ["close:read"]},
            "of every account": {"subject": "ann", "accounts": None, "scopes": ["close:operate", "close:read"]},
        }
    },
    "list_open_incidents": OPERATOR_ANSWERS["list_incidents"],
    "list_waiting_closes": {"200": {"one": {"at": _AT, "waiting": [_WAIT], "more": False}}},
    "get_status": {
        "200": {
            "one of them is red": {
                "lights": [
                    {"name": "connector", "colour": "green", "says": "Debezium writes its heartbeat"},
                    {"name": "breaker", "colour": "red", "says": "the circuit breaker is open for ACC-1"},
                ]
            }
        }
    },
}
"""By operation and status, named."""
