"""What callers send: read exactly, or refused with a 4xx that says why."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from starlette.requests import Request
from starlette.types import Message

from close_api.close_body import CloseBody, read_request_id, read_values
from close_api.errors import Code, Problem
from close_api.rest.request_body import (
    MAX_BODY_BYTES,
    parse_object,
    read_close,
    read_key,
    read_position_id,
    unknown_fields,
)
from closeflow.domain.model import OrderType


def request(*chunks: bytes, headers: dict[str, str] | None = None, keys: tuple[str, ...] = ()) -> Request:
    """A request whose body comes in these chunks; without a length, so chunked, unless the headers say one."""
    named = {"transfer-encoding": "chunked"} if headers is None else headers
    waiting = list(chunks)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": body != b""}

    listed = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    listed += [(b"idempotency-key", key.encode("latin-1")) for key in keys]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": listed}, receive)


async def close_of(text: str) -> CloseBody:
    return await read_close(request(text.encode(), b""), deadline_s=1.0)


async def refusal_of(text: str) -> tuple[Code, list[str]]:
    with pytest.raises(Problem) as refused:
        await close_of(text)
    fields = refused.value.extra.get("fields", [])
    assert isinstance(fields, list)
    return refused.value.code, [one["field"] for one in fields]


@pytest.mark.parametrize("text", ["", "{}", " {} ", '{"order_type": "limit"}'])
async def test_nothing_and_spelled_out_defaults_are_equal(text: str) -> None:
    assert await close_of(text) == CloseBody()


async def test_no_body_at_all_is_read_without_waiting_for_one() -> None:
    assert await read_close(request(headers={}), deadline_s=0.0) == CloseBody()


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("2", "2"),
        ("0.1", "0.1"),
        ("1e1", "10"),
        ("0.123456789012345678", "0.123456789012345678"),
        ("12345678901234.000000001", "12345678901234.000000001"),
    ],
)
async def test_numbers_are_exact(text: str, quantity: str) -> None:
    assert (await close_of(f'{{"quantity": {text}}}')).quantity == Decimal(quantity)


async def test_a_market_order_is_asked_for_by_name() -> None:
    assert (await close_of('{"order_type": "market"}')).order_type is OrderType.MARKET


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "-0.0", "NaN", "Infinity", "-Infinity", "null", "true", '"5"', "[]", "{}", "1e15", "1e999999", "1e-19"],
)
@pytest.mark.parametrize("field", ["quantity", "limit_price"])
async def test_what_is_no_usable_number_is_a_field_error(field: str, value: str) -> None:
    assert await refusal_of(f'{{"{field}": {value}}}') == (Code.INVALID_FIELDS, [field])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"order_type": "stop"}', ["order_type"]),
        ('{"order_type": null}', ["order_type"]),
        ('{"order_type": "market", "limit_price": 1}', ["limit_price"]),
        ('{"percentage": 0}', ["percentage"]),
        ('{"percentage": 100.1}', ["percentage"]),
        ('{"percentage": 50, "quantity": 1}', ["percentage"]),
        ('{"percentage": "50"}', ["percentage"]),
        ('{"max_slippage_bps": -1}', ["max_slippage_bps"]),
        ('{"max_slippage_bps": 1.5}', ["max_slippage_bps"]),
        ('{"max_slippage_bps": 10001}', ["max_slippage_bps"]),
        ('{"max_slippage_bps": 1, "order_type": "market"}', ["max_slippage_bps"]),
        ('{"max_slippage_bps": 1, "limit_price": 1}', ["max_slippage_bps"]),
        ('{"time_in_force": "fok"}', ["time_in_force"]),
        ('{"time_in_force": null}', ["time_in_force"]),
        ('{"working_timeout_seconds": 0}', ["working_timeout_seconds"]),
        ('{"working_timeout_seconds": 86401}', ["working_timeout_seconds"]),
        ('{"working_timeout_seconds": 1e999999}', ["working_timeout_seconds"]),
        ('{"deadline": "2026-03-02"}', ["deadline"]),
        ('{"deadline": "2026-03-02T15:00:00"}', ["deadline"]),
        ('{"deadline": "2026-02-30T15:00:00Z"}', ["deadline"]),
        ('{"deadline": "0001-01-01T00:00:00+14:00"}', ["deadline"]),
        ('{"deadline": 1}', ["deadline"]),
        ('{"expected_quantity": "10"}', ["expected_quantity"]),
        ('{"expected_quantity": NaN}', ["expected_quantity"]),
        ('{"expected_quantity": -1e15}', ["expected_quantity"]),
        ('{"reason": ""}', ["reason"]),
        ('{"reason": "a\\u0000b"}', ["reason"]),
        ('{"reason": 1}', ["reason"]),
        ('{"dry_run": 1}', ["dry_run"]),
        ('{"dry_run": "true"}', ["dry_run"]),
        ('{"dry_run": null}', ["dry_run"]),
        ('{"": 1}', [""]),
        ('{"quantity": 0, "other": 1}', ["quantity", "other"]),
    ],
)
async def test_wrong_unknown_and_contradicting_fields_are_named(text: str, fields: list[str]) -> None:
    assert await refusal_of(text) == (Code.INVALID_FIELDS, fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"qty": 1}, "is not a field of this call; remove it"),
        ({"order_type": "stop"}, "must be 'limit' or 'market'"),
        ({"time_in_force": "fok"}, "must be 'day', 'gtc' or 'ioc'"),
        ({"dry_run": "yes"}, "must be true or false"),
        ({"reason": ""}, "must be 1 to 500 printable characters"),
    ],
)
def test_a_field_error_says_what_the_field_must_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(Problem) as refused:
        read_values(values)
    assert refused.value.extra["fields"] == [{"field": next(iter(values)), "message": message}]


def test_a_body_that_is_needed_and_not_there_is_told_so() -> None:
    with pytest.raises(Problem) as refused:
        parse_object(b"")
    assert refused.value.code is Code.MALFORMED_BODY
    assert refused.value.extra["reason"] == "there is none, and this call needs one"


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "5",
        '"x"',
        "{",
        "{]",
        "{'quantity': 1}",
        '{"quantity": 1,}',
        '{"quantity": 1, "quantity": 2}',
        '{"a": {"b": 1, "b": 2}}',
        '{"quantity": 1e99999999999999999999}',
        '{"quantity": 01}',
        "[" * 60_000,
        '{"a":' * 10_000,
    ],
)
async def test_what_is_no_json_object_is_refused(text: str) -> None:
    assert (await refusal_of(text))[0] is Code.MALFORMED_BODY


def test_bad_utf_8_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        parse_object(b'{"quantity": "\xff"}')
    assert refused.value.code is Code.MALFORMED_BODY


async def test_many_wrong_fields_give_a_short_answer() -> None:
    text = "{" + ",".join(f'"f{n}": 1' for n in range(5000)) + "}"
    assert len((await refusal_of(text))[1]) == 20


async def test_of_many_names_that_a_body_must_not_have_some_are_told() -> None:
    refused = unknown_fields(f"name-{number}" for number in range(100_000))
    assert len(refused.extra["fields"]) == 20  # type: ignore[arg-type]


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    with pytest.raises(Problem) as refused:
        await read_close(request(headers={"content-length": str(MAX_BODY_BYTES + 1)}), deadline_s=1.0)
    assert refused.value.code is Code.BODY_TOO_LARGE


async def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit() -> None:
    half = b" " * (MAX_BODY_BYTES // 2)
    assert await read_close(request(half, half[2:], b"{}", b""), deadline_s=1.0) == CloseBody()
    with pytest.raises(Problem) as refused:
        await read_close(request(half, half, b"{"), deadline_s=1.0)
    assert refused.value.code is Code.BODY_TOO_LARGE


async def test_a_body_that_does_not_end_is_given_up_at_the_deadline() -> None:
    with pytest.raises(Problem) as refused:
        await read_close(request(b"{"), deadline_s=0.01)
    assert refused.value.code is Code.BODY_TOO_SLOW
    assert refused.value.headers == {"connection": "close"}


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ("  abc ", "abc"),
        ('"a b"', "a b"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('a"b', 'a"b'),
        ("x" * 100, "x" * 100),
        ('"' + "x" * 100 + '"', "x" * 100),
    ],
)
def test_a_key_is_the_same_bare_and_quoted(header: str, key: str) -> None:
    assert read_key(request(keys=(header,))) == key


@pytest.mark.parametrize("header", ["", '""', '"', '"abc', '"a"b"', r'"a\b"', "x" * 101, "ü", "a\tb", "a\x7f"])
def test_a_key_that_cannot_be_one_is_invalid(header: str) -> None:
    with pytest.raises(Problem) as refused:
        read_key(request(keys=(header,)))
    assert refused.value.code is Code.IDEMPOTENCY_KEY_INVALID


def test_no_key_is_missing_and_two_are_invalid() -> None:
    with pytest.raises(Problem) as missing:
        read_key(request())
    assert missing.value.code is Code.IDEMPOTENCY_KEY_MISSING
    with pytest.raises(Problem) as twice:
        read_key(request(keys=("a", "a")))
    assert twice.value.code is Code.IDEMPOTENCY_KEY_INVALID


@pytest.mark.parametrize("text", ["0", "-1", "01", str(2**63), "1 OR 1=1", "", "1.0", "1e3", "١", "9" * 5000, "1\n"])
def test_an_id_that_no_position_can_have_is_a_field_error(text: str) -> None:
    with pytest.raises(Problem) as refused:
        read_position_id(text)
    assert refused.value.code is Code.INVALID_FIELDS


def test_the_largest_position_id_is_read() -> None:
    assert read_position_id(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize(
    "text", ["", "x", "1", "{01a20503-b516-7095-8fe7-07f508d10a1b}", "01a20503b51670958fe707f508d10a1b"]
)
def test_a_request_id_is_a_uuid_with_dashes(text: str) -> None:
    with pytest.raises(Problem):
        read_request_id(text)
    read_request_id("01A20503-b516-7095-8fe7-07f508d10a1b")
