"""Whatever of a call nobody here reads is refused, never dropped: it may be what the caller meant by the close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
from starlette.requests import Request

from close_api.errors import Code, Problem
from close_api.rest.unread_input import refuse_what_is_not_read

Headers = Sequence[tuple[str, str]]
JSON: Final = ("Content-Type", "application/json")


def call(headers: Headers = (), *, method: str = "POST", query: str = "", version: str = "1.1") -> Request:
    return Request(
        {
            "type": "http",
            "method": method,
            "path": "/",
            "query_string": query.encode("latin-1"),
            "http_version": version,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        }
    )


def refusal_of(request: Request) -> tuple[Code, Any]:
    with pytest.raises(Problem) as refused:
        refuse_what_is_not_read(request)
    fields = refused.value.extra.get("fields", [])
    assert isinstance(fields, list)
    return refused.value.code, [one["field"] for one in fields]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("qty=3", ["qty"]),
        ("quantity=3&percentage=50", ["quantity", "percentage"]),
        ("dry_run=", ["dry_run"]),
        ("dry_run", ["dry_run"]),
        ("Idempotency-Key=k", ["Idempotency-Key"]),
        ("a=1&a=2", ["a"]),
        ("%71ty=3", ["qty"]),
        ("&", ["&"]),
        ("=3", [""]),
        ("qty=3;x=1", ["qty"]),
        ("%ff=1", ["\ufffd"]),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_query_is_refused_by_its_names(method: str, query: str, names: list[str]) -> None:
    assert refusal_of(call(method=method, query=query)) == (Code.INVALID_FIELDS, names)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin", "none, none"])
def test_a_page_of_another_site_may_not_close(site: str) -> None:
    assert refusal_of(call([("Sec-Fetch-Site", site)]))[0] is Code.MALFORMED_REQUEST
    refuse_what_is_not_read(call([("Sec-Fetch-Site", site)], method="GET"))


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_a_page_of_our_own_may(site: str) -> None:
    refuse_what_is_not_read(call([("Sec-Fetch-Site", site)]))


def test_a_long_query_gives_a_short_answer() -> None:
    _, names = refusal_of(call(query="&".join(f"{'x' * 500}{n}=1" for n in range(5000))))
    assert len(names) == 20
    assert max(map(len, names)) == 100


@pytest.mark.parametrize(
    "name",
    [
        "If-Match",
        "If-None-Match",
        "If-Unmodified-Since",
        "If-Modified-Since",
        "If_Match",
        "X-If-Match",
        "IfMatch",
        "Idempotency_Key",
        "X-Idempotency-Key",
        "IdempotencyKey",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "Quantity",
        "X-Qty",
        "Percentage",
        "X-Dry-Run",
        "Dry_Run",
        "Limit-Price",
        "Order-Type",
        "Time-In-Force",
        "X-Expected-Quantity",
        "Deadline",
        *("Amount", "Size", "Shares", "Price", "Stop-Price", "Limit", "Side", "Version", "Account-Id", "X-Simulate"),
        *("Idempotent-Key", "Idempotency-Keys", "Idempotency", "X-Idempotency-Key", "Idempotency_Key"),
    ],
)
def test_a_header_that_asks_for_what_is_not_done_is_refused_by_name(name: str) -> None:
    given = [("Idempotency-Key", "k"), (name, "3")]
    assert refusal_of(call(given)) == (Code.INVALID_FIELDS, [name.lower()])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_may_say_what_it_has_but_not_what_must_be(method: str) -> None:
    refuse_what_is_not_read(call([("If-None-Match", '"1"'), ("If-Modified-Since", "x")], method=method))
    assert refusal_of(call([("If-Match", '"1"')], method=method)) == (Code.INVALID_FIELDS, ["if-match"])


@pytest.mark.parametrize(
    "headers",
    [
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "identity")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "2")],
        [("Content-Length", "2"), ("Content-Length", "2")],
        [("Content-Length", "+2")],
        [("Content-Length", "2, 2")],
        [("Content-Length", "٢".encode().decode("latin-1"))],
        [("Trailer", "Idempotency-Key"), ("Transfer-Encoding", "chunked")],
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_body_whose_end_can_be_read_in_two_ways_is_refused(method: str, headers: Headers) -> None:
    assert refusal_of(call([*headers, JSON], method=method)) == (Code.MALFORMED_REQUEST, [])


def test_a_call_of_http_1_0_has_to_say_how_long_its_body_is() -> None:
    assert refusal_of(call(version="1.0")) == (Code.LENGTH_REQUIRED, [])
    assert refusal_of(call([("Transfer-Encoding", "chunked")], version="1.0")) == (Code.LENGTH_REQUIRED, [])
    refuse_what_is_not_read(call([("Content-Length", "0")], version="1.0"))
    refuse_what_is_not_read(call(version="1.1"))
    refuse_what_is_not_read(call(method="GET", version="1.0"))


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/merge-patch+json",
        "application/jsonp",
        "application/json; charset=utf-16",
        "application/json; version=2",
        "application/json, text/plain",
        "",
        ";",
        "json",
    ],
)
def test_a_body_that_is_not_json_is_refused_by_its_type(content_type: str) -> None:
    for framing in (("Content-Length", "2"), ("Transfer-Encoding", "chunked")):
        assert refusal_of(call([framing, ("Content-Type", content_type)])) == (Code.UNSUPPORTED_MEDIA_TYPE, [])
    refuse_what_is_not_read(call([("Content-Length", "0"), ("Content-Type", content_type)]))


def test_two_types_are_none() -> None:
    assert refusal_of(call([("Content-Length", "2"), JSON, JSON])) == (Code.UNSUPPORTED_MEDIA_TYPE, [])


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/json ; charset=utf8;",
    ],
)
def test_json_is_json_however_it_is_written(content_type: str) -> None:
    refuse_what_is_not_read(call([("Content-Length", "2"), ("Content-Type", content_type)]))


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip", "x", ""])
def test_a_compressed_body_is_refused_and_told_what_is_read(coding: str) -> None:
    with pytest.raises(Problem) as refused:
        refuse_what_is_not_read(call([("Content-Length", "2"), JSON, ("Content-Encoding", coding)]))
    assert refused.value.code is Code.UNSUPPORTED_MEDIA_TYPE
    assert refused.value.headers == {"accept-encoding": "identity"}
    refuse_what_is_not_read(call([("Content-Length", "2"), JSON, ("Content-Encoding", "identity")]))


@pytest.mark.parametrize("expectation", ["200-ok", "100-continue, x", ""])
def test_an_expectation_that_is_not_met_is_refused(expectation: str) -> None:
    assert refusal_of(call([("Expect", expectation)])) == (Code.EXPECTATION_FAILED, [])
    refuse_what_is_not_read(call([("Expect", "100-Continue"), ("Content-Length", "2"), JSON]))


def test_a_type_without_a_length_asks_for_the_length() -> None:
    assert refusal_of(call([JSON])) == (Code.LENGTH_REQUIRED, [])
    for framing in ("Content-Length", "0"), ("Content-Length", "2"), ("Transfer-Encoding", "chunked"):
        refuse_what_is_not_read(call([JSON, framing]))
    refuse_what_is_not_read(call([JSON], method="GET"))


@pytest.mark.parametrize("headers", [[("Content-Length", "2")], [("Transfer-Encoding", "chunked")]])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_has_no_body(method: str, headers: Headers) -> None:
    assert refusal_of(call(headers, method=method)) == (Code.MALFORMED_BODY, [])
    refuse_what_is_not_read(call([("Content-Length", "0")], method=method))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Idempotency-Key", "k"), ("Content-Length", "2"), JSON],
        [("Content-Length", "2")],
        [("User-Agent", "x"), ("Accept", "*/*"), ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")],
        [("X-Forwarded-For", "10.0.0.1"), ("X-Request-Id", "1"), ("Authorization", "Bearer x"), ("Cookie", "a=1")],
    ],
)
def test_what_callers_usually_send_is_read(headers: Headers) -> None:
    refuse_what_is_not_read(call(headers))
