"""What operators send and get in the OpenAPI's examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_REASON: Final = "asked by the desk"
_REQUEST: Final = "01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20"
_AT: Final = "2026-03-02T15:00:00Z"
_DONE: Final = "done"


def _performed(what: str, again: str | None = None) -> Mapping[str, Mapping[str, object]]:
    told: dict[str, object] = {"done": {"outcome": _DONE, "what": what}}
    if again is not None:
        told["it was so already"] = {"outcome": "already", "what": again}
    return {"200": told}


SENT: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "set_trading": {
        "stop everything": {"state": "halted", "reason": "prices are wrong"},
        "go on": {"state": "active", "reason": "prices are right again"},
    },
    "set_limits": {"two of them": {"max_order_qty": 500, "submits_per_minute": 60, "reason": "as agreed"}},
    "close_incident": {"why": {"reason": "the broker confirmed the fill"}},
    "retry_close_request": {"why": {"reason": _REASON}},
    "abandon_close_request": {"why": {"reason": "it is closed elsewhere"}},
    "adjust_position": {
        "only to see it": {"delta": -5, "reason": "transferred out", "dry_run": True},
        "five fewer": {"delta": -5, "expected_quantity": 10, "reason": "transferred out"},
    },
    "end_position": {"it expired": {"ending": "expired", "expected_quantity": -2, "reason": "worthless on 2026-03-20"}},
    "name_execution": {
        "as the broker confirms it": {
            "exec_id": "20260302::9f3",
            "quantity": 4,
            "price": 99.5,
            "occurred_at": _AT,
            "reason": "by the confirmation",
        }
    },
    "confirm_sender_exit": {"why": {"reason": "ps shows no such process"}},
}
"""Bodies, by operation, named."""

_CONTROL: Final = {"scope": "global", "state": "halted", "reason": "prices are wrong", "by": "ann", "at": _AT}
_INCIDENT: Final = {
    "id": 7,
    "kind": "gap",
    "severity": "warning",
    "subject": f"cf-{_REQUEST.replace('-', '')}-1",
    "detail": "4 filled that no execution names",
    "evidence": None,
    "runbook": "docs/runbooks/gap.md",
    "account_id": "ACC-1",
    "close_request_id": _REQUEST,
    "opened_at": _AT,
    "last_seen_at": _AT,
    "count": 3,
    "closed_at": None,
    "closed_by": None,
    "resolution": None,
}
_SENDER: Final = {
    "instance_id": "host-1/4711",
    "host": "host-1",
    "pid": 4711,
    "started_at": _AT,
    "last_seen_at": _AT,
    "silent_for_s": 1,
    "exited_at": None,
    "unanswered": 0,
}
_ACTION: Final = {
    "id": 12,
    "at": _AT,
    "by": "ann",
    "action": "halt",
    "subject": "global",
    "reason": "prices are wrong",
    "before": {"state": "active"},
    "after": {"state": "halted"},
    "account_id": None,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
_LIMITS: Final[Mapping[str, Any]] = {
    "account_id": "ACC-1",
    "max_order_qty": 500,
    "max_order_notional": 1_000_000,
    "submits_per_minute": 60,
    "window_started_at": _AT,
    "window_count": 3,
}
OPERATOR_ANSWERS: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "get_trading_controls": {"200": {"halted": {"controls": [_CONTROL]}}},
    "set_trading": _performed("trading is halted", "trading is halted already, by ann: prices are wrong"),
    "get_limits": {"200": {"one account": {"limits": [_LIMITS]}}},
    "set_limits": _performed("account ACC-1: max_order_qty 500, max_order_notional 1000000, submits_per_minute 60"),
    "list_incidents": {"200": {"the last page": {"incidents": [_INCIDENT], "next_page_token": ""}}},
    "get_incident": {"200": {"an open one": _INCIDENT}},
    "close_incident": _performed("incident 7 (gap) is closed", "incident 7 was closed by ann: booked by hand"),
    "retry_close_request": _performed("pending: attempt 2", "attempt 2 is pending already"),
    "abandon_close_request": _performed("abandoned; position 4711 is open"),
    "adjust_position": {
        "200": {
            "done": {"outcome": _DONE, "what": "position 4711: quantity 10 -> 5, it is open"},
            "dry run": {
                "outcome": "shown",
                "what": "nothing was done; it would be: position 4711: quantity 10 -> 5, it is open",
            },
        }
    },
    "end_position": _performed("position 4711: quantity -2 -> 0, it is closed"),
    "name_execution": _performed(
        "booked 4 @ 99.5; 0 is still not named", "execution 20260302::9f3 is booked: 4 @ 99.5"
    ),
    "list_senders": {"200": {"one that lives": {"senders": [_SENDER]}}},
    "confirm_sender_exit": _performed("sender host-1/4711 has exited, confirmed; 0 of its sends have no answer"),
    "list_operator_actions": {"200": {"the last page": {"actions": [_ACTION], "next_page_token": ""}}},
}
"""By operation and status, named."""
