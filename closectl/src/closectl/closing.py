"""`closectl close`: call close-api as a portfolio service does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import httpx

FINAL: Final = frozenset({"completed", "failed"})
POLL_S: Final = 0.05


class CloseRefused(Exception):
    """close-api did not accept the close, or could not be asked (`exit_code` 2)."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def close_position(
    api_url: str, position_id: int, *, body: Mapping[str, str | None], key: str | None, wait_s: float
) -> dict[str, Any]:
    """The close request as close-api states it, after at most `wait_s` seconds of waiting for its end.

    Numbers are sent with the digits given. Raises CloseRefused.
    """
    key = key or f"closectl-{uuid4().hex}"
    fields = [f"{json.dumps(name)}: {_literal(name, value)}" for name, value in body.items() if value is not None]
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    with httpx.Client(base_url=api_url, timeout=10.0) as http:
        answer = _ask(
            http.build_request(
                "POST", f"/v1/positions/{position_id}/close", headers=headers, content="{" + ", ".join(fields) + "}"
            ),
            http,
            key,
        )
        until = time.monotonic() + wait_s
        while answer["close_request_status"] not in FINAL and time.monotonic() < until:
            time.sleep(POLL_S)
            answer = _ask(http.build_request("GET", f"/v1/close-requests/{answer['close_request_id']}"), http, key)
    return {**answer, "idempotency_key": key}


def _literal(name: str, value: str) -> str:
    if name == "order_type":
        return json.dumps(value)
    try:
        number = Decimal(value)
    except ArithmeticError:
        raise CloseRefused(f"--{name.replace('_', '-')} {value} is not a number") from None
    if not number.is_finite():
        raise CloseRefused(f"--{name.replace('_', '-')} {value} is not a finite number")
    return format(number, "f")


def _ask(request: httpx.Request, http: httpx.Client, key: str) -> dict[str, Any]:
    try:
        answer = http.send(request)
    except httpx.TransportError as error:
        raise CloseRefused(
            f"close-api at {http.base_url} did not answer ({error}); whether it accepted is not known: "
            f"repeat the command with --key {key}, which closes once",
            exit_code=2,
        ) from None
    if answer.is_success:
        found: dict[str, Any] = json.loads(answer.content, parse_float=Decimal)
        return found
    raise CloseRefused(f"{answer.status_code}: {_reason(answer)}")


def _reason(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
    return str(detail.get("message", detail)) if isinstance(detail, dict) else str(detail)
