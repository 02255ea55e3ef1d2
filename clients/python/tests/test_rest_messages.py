"""How calls are written as HTTP, and responses read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from closeflow_client import Close, CloseflowError, FieldError
from closeflow_client.calls import (
    Answered,
    Call,
    CancelCloseRequest,
    Change,
    CloseMany,
    ClosePosition,
    GetCloseRequest,
    GetPosition,
    ListCloseRequests,
    ListPositions,
    PlanClose,
)
from closeflow_client.errors import AnswerUnreadable, InvalidFields, RateLimited
from closeflow_client.rest.events import EventStream
from closeflow_client.rest.messages import HttpRequest, json_text, reply_of, request_of, watch_request

from .answers import REQUEST_ID, TRACE_ID, event, problem, request_body

ID = UUID(REQUEST_ID)
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
NEW_YORK = timezone(timedelta(hours=-5))
FULL = Close(
    7,
    key='a "quoted" \\ key',
    quantity=Decimal("0.000000000000000001"),
    order_type="limit",
    limit_price=Decimal("1E+2"),
    max_slippage_bps=25,
    time_in_force="day",
    working_timeout_seconds=90,
    deadline=datetime(2026, 3, 2, 10, 30, 0, 5, tzinfo=NEW_YORK),
    expected_quantity=Decimal("-12.50"),
    if_version=3,
    reason="Ende des Monats – größer",
)


def json_headers(**more: str) -> dict[str, str]:
    return {"content-type": "application/json", **more}


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        (
            ClosePosition(Close(7, key="k")),
            HttpRequest("POST", "/v1/positions/7/close", headers={"idempotency-key": '"k"'}, body=b""),
        ),
        (
            PlanClose(Close(7, key="k", quantity=5)),
            HttpRequest(
                "POST",
                "/v1/positions/7/close",
                headers=json_headers(**{"idempotency-key": '"k"'}),
                body=b'{"quantity":5,"dry_run":true}',
            ),
        ),
        (
            CloseMany((Close(7, key="b/7"), Close(8, key="b/8", percentage=Decimal("12.5")))),
            HttpRequest(
                "POST",
                "/v1/positions:batchClose",
                headers=json_headers(),
                body=b'{"closes":[{"position_id":7,"idempotency_key":"b/7"},'
                b'{"position_id":8,"idempotency_key":"b/8","percentage":12.5}]}',
            ),
        ),
        (GetCloseRequest(ID), HttpRequest("GET", f"/v1/close-requests/{ID}")),
        (GetCloseRequest(ID, 30), HttpRequest("GET", f"/v1/close-requests/{ID}", {"wait": "30s"})),
        (CancelCloseRequest(ID, None), HttpRequest("POST", f"/v1/close-requests/{ID}/cancel", body=b"")),
        (
            CancelCloseRequest(ID, "enough"),
            HttpRequest("POST", f"/v1/close-requests/{ID}/cancel", headers=json_headers(), body=b'{"reason":"enough"}'),
        ),
        (GetPosition(7), HttpRequest("GET", "/v1/positions/7")),
        (ListPositions(), HttpRequest("GET", "/v1/positions")),
        (
            ListPositions("A&B", "open", "BTC/USD", 100, "t="),
            HttpRequest(
                "GET",
                "/v1/positions",
                {"account": "A&B", "status": "open", "symbol": "BTC/USD", "page_size": "100", "page_token": "t="},
            ),
        ),
        (
            ListCloseRequests(position_id=7, created_after=datetime(2026, 3, 2, 10, tzinfo=NEW_YORK)),
            HttpRequest("GET", "/v1/close-requests", {"position": "7", "created_after": "2026-03-02T15:00:00Z"}),
        ),
    ],
)
def test_each_call_has_its_request(call: Call[Any], request_: HttpRequest) -> None:
    assert request_of(call) == request_


def test_a_close_carries_all_of_its_terms_exactly() -> None:
    asked = request_of(ClosePosition(FULL))
    assert asked.headers == json_headers(**{"idempotency-key": '"a \\"quoted\\" \\\\ key"', "if-match": '"3"'})
    assert asked.body is not None
    assert json.loads(asked.body, parse_float=str) == {
        "quantity": "0.000000000000000001",
        "order_type": "limit",
        "limit_price": 100,
        "max_slippage_bps": 25,
        "time_in_force": "day",
        "working_timeout_seconds": 90,
        "deadline": "2026-03-02T15:30:00.000005Z",
        "expected_quantity": "-12.50",
        "reason": "Ende des Monats – größer",
    }


def test_a_watch_says_where_it_goes_on() -> None:
    path = f"/v1/close-requests/{ID}/watch"
    accept = {"accept": "text/event-stream"}
    assert watch_request(ID, None) == HttpRequest("GET", path, headers=accept)
    assert watch_request(ID, "e7") == HttpRequest("GET", path, headers=accept | {"last-event-id": "e7"})


def test_numbers_keep_every_digit() -> None:
    assert json_text({"a": [Decimal("123456789012345.123456789"), True, None, "é\n"]}) == (
        '{"a":[123456789012345.123456789,true,null,"é\\n"]}'
    )


def read(status: int, body: object, **headers: str) -> Answered | CloseflowError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return reply_of(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, now=NOW)


def failed(status: int, body: object, **headers: str) -> CloseflowError:
    found = read(status, body, **headers)
    assert isinstance(found, CloseflowError)
    return found


def test_an_answer_keeps_its_decimals_and_what_is_not_known() -> None:
    found = read(201, b'{"target_qty": 0.1, "filled_qty": 3, "newer": {"a": 1}}')
    assert found == Answered({"target_qty": Decimal("0.1"), "filled_qty": 3, "newer": {"a": 1}})
    assert read(200, {}, idempotency_replayed="true") == Answered({}, replayed=True)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff", b'{"a": NaN}', b"[" * 100_000, b'"' * 3])
def test_a_success_that_is_no_object_is_not_close_apis(body: bytes) -> None:
    found = failed(200, body, trace_id=TRACE_ID)
    assert isinstance(found, AnswerUnreadable)
    assert (found.status, found.trace_id) == (200, TRACE_ID)


def test_a_problem_has_all_of_its_facts() -> None:
    fields = [{"field": "quantity", "message": "must be above 0", "newer": 1}, "odd"]
    found = failed(422, problem("invalid_fields", 422, fields=fields, other=7), should_retry="false")
    assert isinstance(found, InvalidFields)
    assert found.fields == (FieldError("quantity", "must be above 0"),)
    assert (found.status, found.code, found.message) == (422, "invalid_fields", "It is invalid_fields.")
    assert (found.trace_id, found.should_retry, found.members["other"]) == (TRACE_ID, False, 7)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Mon, 02 Mar 2026 15:00:30 GMT", 30.0),
        ("Mon, 02 Mar 2026 14:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, 999999999.0),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(retry_after: str, seconds: float | None) -> None:
    found = failed(429, problem("rate_limited", 429), retry_after=retry_after, should_retry="TRUE")
    assert isinstance(found, RateLimited)
    assert (found.retry_after_s, found.should_retry) == (seconds, True)


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[]", b"{}", b'{"code": 5, "fields": 7}'])
def test_what_answers_in_another_form_has_its_status(body: bytes) -> None:
    found = failed(502, body)
    assert type(found) is CloseflowError
    assert (found.code, found.status, found.fields, found.should_retry) == ("unknown", 502, (), None)
    assert "answered with status 502" in found.message


def test_a_redirect_is_not_followed_and_says_where_to() -> None:
    found = failed(307, b"", location="https://elsewhere/")
    assert "redirect to https://elsewhere/" in str(found)


def test_results_of_a_batch_that_failed_are_errors() -> None:
    error = problem("position_already_closing", 409, active_close_request_id=REQUEST_ID)
    body = {"results": [{"status": 409, "error": error}, {"close_request": request_body(), "replayed": True}]}
    found = read(200, body)
    assert isinstance(found, Answered)
    refused, accepted = CloseMany((Close(7, key="b/7"), Close(8, key="b/8"))).read(found)
    assert isinstance(refused, CloseflowError)
    assert (refused.code, refused.status, refused.key, refused.trace_id) == (
        "position_already_closing",
        409,
        "b/7",
        TRACE_ID,
    )
    assert not isinstance(accepted, CloseflowError)
    assert (accepted.key, accepted.replayed) == ("b/8", True)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    stream = b": still here\n\n" + event("e1") + b"retry: 5\r\nid: e2\r\ndata: {\r\ndata: }\r\n\r\n" + b"data: {}"
    reader = EventStream()
    found = [one for n in range(0, len(stream), size) for one in reader.feed(stream[n : n + size])]
    assert found == [Change("e1", request_body()), Change("e2", {})]


def test_an_event_that_is_no_object_is_not_close_apis() -> None:
    for data in (b"data: [1]\n\n", b"data: {\n\n", b"data:" + b"[" * 50_000 + b"\n\n"):
        with pytest.raises(AnswerUnreadable, match="an event is not a JSON object"):
            list(EventStream().feed(data))
