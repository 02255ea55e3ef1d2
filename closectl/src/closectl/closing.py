"""`closectl close`: call close-api as a portfolio service does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import httpx

from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls

FINAL: Final = frozenset({"completed", "failed"})
POLL_S: Final = 0.05
_LONGEST_REASON: Final = 500
_OF_EVERY_PROBLEM: Final = frozenset({"type", "title", "status", "detail", "code", "trace_id"})
_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""Of these errors nothing reached close-api."""


class CloseRefused(Exception):
    """close-api did not accept the close, or could not be asked (`exit_code` 2)."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def close_position(
    api_url: str,
    position_id: int,
    *,
    body: Mapping[str, str | Decimal | None],
    key: str | None,
    wait_s: float,
    token: str | None = None,
    tls: ClientTls | None = None,
) -> dict[str, Any]:
    """The close request as close-api states it, after at most `wait_s` seconds of waiting for its end.

    Numbers are sent with the digits given. Raises CloseRefused.
    """
    key = key or f"closectl-{uuid4().hex}"
    fields = [f"{json.dumps(name)}: {_literal(value)}" for name, value in body.items() if value is not None]
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    with _client(api_url, token, tls or SYSTEM_AUTHORITIES) as http:
        answer = _post(
            http,
            http.build_request(
                "POST", f"/v1/positions/{position_id}/close", headers=headers, content="{" + ", ".join(fields) + "}"
            ),
            key,
        )
        until = time.monotonic() + wait_s
        while answer["close_request_status"] not in FINAL and time.monotonic() < until:
            time.sleep(POLL_S)
            answer = _state(http, str(answer["close_request_id"]))
    return {**answer, "idempotency_key": key}


def _client(api_url: str, token: str | None, tls: ClientTls) -> httpx.Client:
    """Proxies from the environment would be settings that nobody sees."""
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        verify = tls.context() if api_url.startswith("https:") else True
        return httpx.Client(base_url=api_url, timeout=10.0, trust_env=False, headers=headers, verify=verify)
    except httpx.InvalidURL as error:
        raise CloseRefused(f"CLOSECTL_API_URL {api_url} is not a URL ({error})", exit_code=2) from None


def _literal(value: str | Decimal) -> str:
    return format(value, "f") if isinstance(value, Decimal) else json.dumps(value)


def _post(http: httpx.Client, request: httpx.Request, key: str) -> dict[str, Any]:
    again = f"repeat the command with --key {key}, which closes once"
    try:
        answer = http.send(request)
    except _NOT_SENT as error:
        raise CloseRefused(
            f"close-api at {http.base_url} cannot be reached ({_told(error)}); nothing was sent. Start it, or mend "
            "CLOSECTL_API_URL, and repeat the command",
            exit_code=2,
        ) from None
    except httpx.TransportError as error:
        raise CloseRefused(
            f"close-api at {http.base_url} did not answer ({_told(error)}); whether it accepted is not known: {again}",
            exit_code=2,
        ) from None
    found = _read(answer)
    if found is not None:
        return found
    told, theirs = _refusal(http, answer)
    if theirs and answer.is_server_error:
        told += f" To do so, {again}."
    raise CloseRefused(told, exit_code=1 if theirs else 2)


def _state(http: httpx.Client, request_id: str) -> dict[str, Any]:
    accepted = f"close request {request_id} was accepted; `closectl show {request_id}` tells what becomes of it"
    try:
        answer = http.send(http.build_request("GET", f"/v1/close-requests/{request_id}"))
    except httpx.TransportError as error:
        raise CloseRefused(f"{accepted}. close-api does not answer any more ({_told(error)})", exit_code=2) from None
    found = _read(answer)
    if found is None:
        raise CloseRefused(f"{accepted}. {_refusal(http, answer)[0]}", exit_code=2)
    return found


def _read(answer: httpx.Response) -> dict[str, Any] | None:
    """What close-api states; None where this is a refusal, or no answer of close-api's."""
    if not answer.is_success:
        return None
    try:
        found = json.loads(answer.content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    known = isinstance(found, dict) and "close_request_status" in found and "close_request_id" in found
    return found if known else None


def _refusal(http: httpx.Client, answer: httpx.Response) -> tuple[str, bool]:
    """What to tell, and whether it is close-api that said so."""
    try:
        problem = json.loads(answer.content, parse_float=Decimal)
        told = problem["detail"]
        _ = problem["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        told = f"{http.base_url} answered {answer.status_code}, not as close-api does; is CLOSECTL_API_URL its address?"
        return told, False
    facts = "; ".join(map(_line, _facts(problem, with_trace=answer.is_server_error)))
    told = f"{answer.status_code}: {_line(told)}" + (f" ({facts})" if facts else "")
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        told += " The token is CLOSECTL_API_TOKEN; for development `closectl token issue` makes one."
    return told, True


def _facts(problem: Mapping[str, Any], *, with_trace: bool) -> Iterator[str]:
    """What the problem says beside its detail, which often points at it."""
    for name, value in problem.items():
        if name in ("fields", "reasons"):
            for one in value if isinstance(value, list) else ():
                yield f"{one.get('field')} {one.get('message')}" if isinstance(one, dict) else str(one)
        elif name == "reason":
            yield str(value)
        elif name not in _OF_EVERY_PROBLEM or (with_trace and name == "trace_id"):
            yield f"{name} {value}"


def _line(text: object) -> str:
    return " ".join(str(text).split())[:_LONGEST_REASON]


def _told(error: Exception) -> str:
    return _line(error) or type(error).__name__
