"""A call as an HTTP request, and an HTTP response as its reply. Nothing is sent here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final, assert_never
from uuid import UUID

from closeflow_client.calls import (
    Answered,
    Call,
    CancelCloseRequest,
    CloseMany,
    ClosePosition,
    GetCloseRequest,
    GetPosition,
    ListCloseRequests,
    ListPositions,
    PlanClose,
)
from closeflow_client.close import Close
from closeflow_client.errors import AnswerUnreadable, CloseflowError, FieldError, error_of

_LONGEST_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What is sent, but for the token."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def request_of(call: Call[Any]) -> HttpRequest:
    """The request that asks for the call."""
    match call:
        case ClosePosition(close=close):
            return _close_request(close, close.terms())
        case PlanClose(close=close):
            return _close_request(close, close.terms() | {"dry_run": True})
        case CloseMany(closes=closes):
            items = [{"position_id": one.position_id, "idempotency_key": one.key, **one.terms()} for one in closes]
            return _post("/v1/positions:batchClose", {"closes": items})
        case GetCloseRequest(request_id=request_id, wait_s=wait_s):
            return HttpRequest("GET", _path(request_id), {"wait": f"{wait_s}s"} if wait_s else {})
        case CancelCloseRequest(request_id=request_id, reason=reason):
            return _post(f"{_path(request_id)}/cancel", {} if reason is None else {"reason": reason})
        case GetPosition(position_id=position_id):
            return HttpRequest("GET", f"/v1/positions/{position_id}")
        case ListCloseRequests():
            return HttpRequest("GET", "/v1/close-requests", _query(call, position=call.position_id))
        case ListPositions():
            return HttpRequest("GET", "/v1/positions", _query(call))
        case _:
            raise TypeError(f"{type(call).__name__} cannot be sent over REST")


def watch_request(request_id: UUID, last_event_id: str | None) -> HttpRequest:
    """The request for the events of a close request after `last_event_id`."""
    headers = {"accept": "text/event-stream"} | ({"last-event-id": last_event_id} if last_event_id else {})
    return HttpRequest("GET", f"{_path(request_id)}/watch", headers=headers)


def reply_of(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Answered | CloseflowError:
    """What the response says; `headers` by their names in lower case."""
    if status not in (200, 201):
        return _error(status, headers, _object_or_none(body) or {}, now)
    values = _object_or_none(body)
    if values is None:
        shown = body[:_LONGEST_SHOWN].decode("utf-8", "replace")
        message = f"the answer is not a JSON object, so it is not close-api's: {shown!r}"
        return AnswerUnreadable(message, status=status, trace_id=headers.get("trace-id"))
    if isinstance(values.get("results"), list):
        values["results"] = [_result(one) for one in values["results"]]
    replayed = headers.get("idempotency-replayed") == "true"
    return Answered(values, replayed, status, headers.get("trace-id"))


def json_text(value: object) -> str:
    """JSON in which a Decimal is a number with all of its digits and a datetime is RFC 3339 in UTC."""
    match value:
        case Decimal():
            return format(value, "f")
        case datetime():
            return json.dumps(value.astimezone(UTC).isoformat().replace("+00:00", "Z"))
        case Mapping():
            return "{" + ",".join(f"{json.dumps(name)}:{json_text(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ",".join(map(json_text, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _path(request_id: UUID) -> str:
    return f"/v1/close-requests/{request_id}"


def _close_request(close: Close, terms: Mapping[str, Any]) -> HttpRequest:
    assert close.key is not None
    # A string of a structured field (RFC 8941 section 3.3.3): so a key keeps its spaces and quotes.
    escaped = close.key.replace("\\", "\\\\").replace('"', '\\"')
    headers = {"idempotency-key": f'"{escaped}"'}
    if close.if_version is not None:
        headers["if-match"] = f'"{close.if_version}"'
    return _post(f"/v1/positions/{close.position_id}/close", terms, headers)


def _post(path: str, values: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> HttpRequest:
    body = json_text(values).encode() if values else b""
    content = {"content-type": "application/json"} if values else {}
    return HttpRequest("POST", path, headers={**content, **(headers or {})}, body=body)


def _query(call: ListCloseRequests | ListPositions, *, position: int | None = None) -> dict[str, str]:
    match call:
        case ListCloseRequests(created_after=after):
            time = None if after is None else after.astimezone(UTC).isoformat().replace("+00:00", "Z")
            own = {"position": position, "created_after": time}
        case ListPositions(symbol=symbol):
            own = {"symbol": symbol}
        case _:
            assert_never(call)
    given = {"account": call.account, "status": call.status, **own}
    paging = {"page_size": call.page_size or None, "page_token": call.page_token or None}
    return {name: str(value) for name, value in (given | paging).items() if value is not None}


def _object_or_none(body: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _no_number(text: str) -> None:
    raise ValueError(text)


def _result(result: Any) -> Any:
    """One of a batch's results, an error as the exception."""
    if not isinstance(result, dict) or not isinstance(result.get("error"), dict):
        return result
    status = result.get("status")
    error = _problem(status if isinstance(status, int) else 0, result["error"])
    again, seconds = result["error"].get("should_retry"), result["error"].get("retry_after_s")
    error.should_retry = again if isinstance(again, bool) else None
    error.retry_after_s = float(seconds) if isinstance(seconds, int | Decimal) else None
    return error


def _error(status: int, headers: Mapping[str, str], values: Mapping[str, Any], now: datetime) -> CloseflowError:
    error = _problem(status, values)
    error.trace_id = error.trace_id or headers.get("trace-id")
    error.retry_after_s = _seconds(headers.get("retry-after"), now)
    error.should_retry = {"true": True, "false": False}.get(headers.get("should-retry", "").lower())
    if 300 <= status < 400:
        error.message = (
            f"answered with a redirect to {headers.get('location')}, which is not followed; give that address"
        )
    return error


def _problem(status: int, values: Mapping[str, Any]) -> CloseflowError:
    """From the members of a problem document (RFC 9457); what else answers has only its status."""
    code, detail, trace_id = values.get("code"), values.get("detail"), values.get("trace_id")
    found = values.get("fields")
    fields = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return error_of(
        code if isinstance(code, str) else "unknown",
        detail if isinstance(detail, str) else f"answered with status {status}, and not in the form of close-api",
        status=status,
        trace_id=trace_id if isinstance(trace_id, str) else None,
        fields=[FieldError(str(one.get("field")), str(one.get("message"))) for one in fields],
        members=values,
    )


def _seconds(retry_after: str | None, now: datetime) -> float | None:
    """Seconds, or a date as proxies write it (RFC 9110 section 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):
        return None
