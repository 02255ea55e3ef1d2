"""Closes as messages: what REST refuses is refused, by the same names and in the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from close_api.auth.caller import ANYONE
from close_api.close_body import read_values
from close_api.errors import Code, Problem
from close_api.grpc.answers import ORDER_TYPES, TIMES_IN_FORCE
from close_api.grpc.generated import close_pb2 as pb
from close_api.grpc.requests import read_close, reader, refuse_unknown
from close_api.rest.request_body import parse_object

DECIMALS: Final = ("quantity", "percentage", "limit_price", "expected_quantity")
KEYED: Final = {"position_id": 7, "idempotency_key": "k"}


def close(**fields: Any) -> pb.Close:
    return pb.Close(**{**KEYED, **fields})


def refusal(work: Any, *given: Any) -> Problem | None:
    try:
        work(*given)
    except Problem as problem:
        return problem
    return None


def fields_of(problem: Problem | None) -> Mapping[str, str]:
    if problem is None:
        return {}
    assert problem.code is Code.INVALID_FIELDS
    listed: Any = problem.extra["fields"]
    return {one["field"]: one["message"] for one in listed}


def over_rest(text: str) -> Mapping[str, str]:
    """What is wrong with the fields of a JSON body."""
    return fields_of(refusal(lambda: read_values(parse_object(text.encode()))))


def over_grpc(text: str) -> Mapping[str, str]:
    """What is wrong with the same fields of a message: the numbers that are decimals as text, the enums by number."""
    values: dict[str, Any] = json.loads(text, parse_float=str, parse_int=str)
    for name, value in values.items():
        match name:
            case "order_type":
                values[name] = next((int(n) for word, n in ORDER_TYPES.items() if word == value), 77)
            case "time_in_force":
                values[name] = next((int(n) for word, n in TIMES_IN_FORCE.items() if word == value), 77)
            case "max_slippage_bps" | "working_timeout_seconds":
                values[name] = int(value)
    return fields_of(refusal(read_close, close(**values)))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"quantity": 0}',
        '{"quantity": -1}',
        '{"quantity": 1000000000000000}',
        '{"quantity": 999999999999999.9}',
        '{"quantity": 0.0000000000000000001}',
        '{"quantity": 0.000000000000000001}',
        '{"quantity": 1, "percentage": 50}',
        '{"percentage": 0}',
        '{"percentage": 100}',
        '{"percentage": 100.01}',
        '{"percentage": -5}',
        '{"order_type": "stop"}',
        '{"order_type": "market", "limit_price": 3}',
        '{"order_type": "market", "max_slippage_bps": 3}',
        '{"limit_price": 0}',
        '{"limit_price": 3, "max_slippage_bps": 3}',
        '{"max_slippage_bps": -1}',
        '{"max_slippage_bps": 0}',
        '{"max_slippage_bps": 10001}',
        '{"time_in_force": "fok"}',
        '{"working_timeout_seconds": 0}',
        '{"working_timeout_seconds": -3}',
        '{"working_timeout_seconds": 86401}',
        '{"expected_quantity": -3}',
        '{"expected_quantity": -1000000000000000}',
        '{"reason": ""}',
        '{"reason": "a\\u0000b"}',
        '{"reason": "' + "x" * 501 + '"}',
        '{"quantity": 0, "percentage": 0, "limit_price": -1, "max_slippage_bps": 10001, "reason": ""}',
    ],
)
def test_both_doors_refuse_the_same_fields_in_the_same_words(text: str) -> None:
    assert over_grpc(text) == over_rest(text)


@pytest.mark.parametrize("name", DECIMALS)
@pytest.mark.parametrize(
    "text",
    ["", " ", "NaN", "nan", "Infinity", "-inf", "1e3", "1e999999", "1E-5", "+1", "1 ", "1,5", "0x10", "١", "1_0", "1.",
     ".5", "9" * 100_000, "0." + "1" * 100_000],
)  # fmt: skip
def test_a_decimal_is_plain_digits(name: str, text: str) -> None:
    assert fields_of(refusal(read_close, close(**{name: text}))) == {
        name: "must be a decimal number in plain digits, such as 10 or 0.5"
    }


def test_every_wrong_decimal_is_named_at_once() -> None:
    wrong = fields_of(refusal(read_close, close(quantity="x", percentage="y", limit_price="1", expected_version=0)))
    assert wrong.keys() == {"quantity", "percentage", "expected_version"}


@pytest.mark.parametrize("position_id", [0, -1, -(2**63)])
def test_an_id_is_a_positive_number(position_id: int) -> None:
    wrong = fields_of(refusal(read_close, close(position_id=position_id)))
    assert wrong == {"position_id": f"must be a whole number from 1 to {2**63 - 1}"}


def test_the_largest_id_is_an_id() -> None:
    assert read_close(close(position_id=2**63 - 1)).position_id == 2**63 - 1


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", Code.IDEMPOTENCY_KEY_MISSING),
        ("x" * 101, Code.IDEMPOTENCY_KEY_INVALID),
        ("x" * 60_000, Code.IDEMPOTENCY_KEY_INVALID),
        ("a\nb", Code.IDEMPOTENCY_KEY_INVALID),
        ("schlüssel", Code.IDEMPOTENCY_KEY_INVALID),
        ("\x00", Code.IDEMPOTENCY_KEY_INVALID),
    ],
)
def test_a_key_is_printable_ascii(key: str, code: Code) -> None:
    problem = refusal(read_close, close(idempotency_key=key))
    assert problem is not None
    assert problem.code is code


@pytest.mark.parametrize("seconds", [-(2**63), -62_135_596_801, 253_402_300_800, 2**63 - 1])
def test_a_deadline_that_no_calendar_has_is_refused(seconds: int) -> None:
    wrong = fields_of(refusal(read_close, close(deadline=Timestamp(seconds=seconds))))
    assert wrong == {"deadline": "is not a time that exists"}


@pytest.mark.parametrize("nanos", [-1, 10**9, -(2**31), 2**31 - 1])
def test_nanos_beyond_a_second_are_no_time(nanos: int) -> None:
    wrong = fields_of(refusal(read_close, close(deadline=Timestamp(seconds=9, nanos=nanos))))
    assert wrong == {"deadline": "is not a time that exists"}


def test_a_close_of_id_and_key_alone_is_all_of_the_position_by_a_limit_order() -> None:
    command = read_close(close()).command(ANYONE, "00-a-b-01")
    assert (command.position_id, command.idempotency_key, command.requested_by) == (7, "k", "anonymous")
    assert (command.quantity, command.percentage, command.limit_price, command.dry_run) == (None, None, None, False)
    assert (command.order_type, command.expected_version, command.traceparent) == ("limit", None, "00-a-b-01")


def test_defaults_that_are_spelled_out_are_the_same_close() -> None:
    spelled = read_close(close(order_type=pb.ORDER_TYPE_LIMIT, percentage="100", working_timeout_seconds=60))
    assert spelled.body.percentage == Decimal(100)
    left_out = read_close(close(order_type=pb.ORDER_TYPE_UNSPECIFIED, time_in_force=0, dry_run=False))
    assert left_out.body == read_close(close()).body


UNKNOWN_NUMBER: Final = b"\x98\x06\x01"
UNKNOWN_TEXT: Final = b"\x92\x03\x02hi"
UNKNOWN_GROUP: Final = b"\x9b\x06" + b"\x9b\x06" * 20 + b"\x9c\x06" * 20 + b"\x9c\x06"


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (UNKNOWN_NUMBER, ["#99"]),
        (UNKNOWN_TEXT, ["#50"]),
        (UNKNOWN_NUMBER + UNKNOWN_TEXT, ["#99", "#50"]),
        (UNKNOWN_GROUP, ["#99"]),
        (b"\x52\x05\x08\x09" + UNKNOWN_NUMBER, ["deadline.#99"]),
    ],
)
def test_a_field_that_is_not_known_is_refused_and_not_passed_over(raw: bytes, names: list[str]) -> None:
    message = pb.Close.FromString(close().SerializeToString() + raw)
    wrong = fields_of(refusal(read_close, message))
    assert wrong == dict.fromkeys(names, "is not a field of this call; remove it")


def test_a_field_that_is_not_known_is_found_in_every_message_of_a_list() -> None:
    strange = pb.Close.FromString(close().SerializeToString() + UNKNOWN_NUMBER)
    message = pb.ClosePositionsRequest(closes=[close(), strange])
    assert fields_of(refusal(refuse_unknown, message)).keys() == {"closes[1].#99"}


def test_a_field_of_another_type_is_a_field_that_is_not_known() -> None:
    """Protobuf keeps a known number with a wire type that it does not have as an unknown field."""
    message = pb.Close.FromString(close().SerializeToString() + b"\x18\x05")
    assert fields_of(refusal(read_close, message)) == {"#3": "is not a field of this call; remove it"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff", Code.MALFORMED_BODY),
        (b"\x12\x02\xff\xfe", Code.MALFORMED_BODY),
        (b"\x0b" * 1000, Code.MALFORMED_BODY),
        (b"\x92\x03\xff\xff\x7f" + b"x" * 70_000, Code.BODY_TOO_LARGE),
    ],
)
def test_what_is_no_message_is_a_problem_and_no_exception(raw: bytes, code: Code) -> None:
    read = reader(pb.Close)(raw)
    assert isinstance(read, Problem)
    assert read.code is code
