"""Read the messages of callers: into the values that both doors check alike. Whatever is wrong becomes a Problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from close_api.auth.caller import Caller
from close_api.close_body import (
    EMPTY,
    CloseBody,
    check_position_id,
    close_command,
    decimal_of,
    read_key_text,
    read_values,
)
from close_api.errors import MOST_FIELD_ERRORS, Code, FieldError, Problem, field_problem
from close_api.grpc.answers import ORDER_TYPES, TIMES_IN_FORCE
from close_api.grpc.generated import close_pb2 as pb
from close_api.use_cases.reading import MAX_WAIT_S
from closeflow.domain.close.accept import CloseCommand
from closeflow.domain.text import time_text

M = TypeVar("M", bound=Message)
T = TypeVar("T")

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_STREAM_MESSAGE_BYTES: Final = 1024 * 1024
MAX_CLOSES: Final = 100
_LONGEST_TEXT: Final = 500
_NOT_A_FIELD: Final = "is not a field of this call; remove it"
_ORDER_TYPES: Final[Mapping[int, str]] = {int(number): one.value for one, number in ORDER_TYPES.items()}
_TIMES_IN_FORCE: Final[Mapping[int, str]] = {int(number): one.value for one, number in TIMES_IN_FORCE.items()}


def reader(message: type[M], *, at_most: int = MAX_MESSAGE_BYTES) -> Callable[[bytes], M | Problem]:
    """What makes such messages of bytes. It never raises, because the server would answer in words of its own."""

    def read(raw: bytes) -> M | Problem:
        if len(raw) > at_most:
            return Problem(Code.BODY_TOO_LARGE)
        try:
            return message.FromString(raw)
        except DecodeError:
            return Problem(Code.MALFORMED_BODY)

    return read


def refuse_unknown(message: Message) -> None:
    """Raises Problem `invalid_fields` with each field that this version of the service does not have, at any depth."""
    found = list(_unknown(message, ""))
    if found:
        raise field_problem(*(FieldError(name, _NOT_A_FIELD) for name in found[:MOST_FIELD_ERRORS]))


@dataclass(frozen=True, slots=True)
class CloseCall:
    """One close as it was written and found to be readable."""

    position_id: int
    key: str
    body: CloseBody
    expected_version: int | None

    def command(self, caller: Caller, traceparent: str) -> CloseCommand:
        """The command of it, under a new id."""
        return close_command(
            caller,
            position_id=self.position_id,
            key=self.key,
            body=self.body,
            traceparent=traceparent,
            expected_version=self.expected_version,
        )


def read_close(close: pb.Close) -> CloseCall:
    """Raises Problem. Only what is there is looked at: most closes are an id and a key."""
    refuse_unknown(close)
    position_id = check_position_id(close.position_id)
    key = read_key_text(close.idempotency_key)
    values: dict[str, object] = {}
    wrong: list[FieldError] = []
    expected_version: int | None = None
    for field, value in close.ListFields():
        name = field.name
        if name == "expected_version":
            expected_version = value
        elif name in _VALUES:
            try:
                values[name] = _VALUES[name](value, name)
            except Problem as problem:
                wrong += _field_errors(problem)
    if expected_version is not None and expected_version < 1:
        wrong.append(FieldError("expected_version", "must be a version of the position, at least 1"))
    if wrong:
        raise field_problem(*wrong)
    return CloseCall(position_id, key, read_values(values) if values else EMPTY, expected_version)


def read_wait(request: pb.GetCloseRequestRequest) -> float:
    """Seconds; 0 where none is given."""
    if not request.HasField("wait"):
        return 0.0
    wait: Duration = request.wait
    seconds = wait.seconds + wait.nanos / 1e9
    if not 0 <= seconds <= MAX_WAIT_S or not 0 <= wait.nanos < 10**9:
        _refuse("wait", f"must be from 0 to {MAX_WAIT_S} seconds")
    return seconds


def read_text(message: Message, name: str) -> str | None:
    """A filter, where it is given."""
    if not message.HasField(name):
        return None
    text: str = getattr(message, name)
    if not text:
        _refuse(name, "is empty; leave it out")
    return _printable(text, name)


def read_page(message: pb.ListCloseRequestsRequest | pb.ListPositionsRequest) -> tuple[int, str]:
    """The size as it is given, which the use case bounds, and the token."""
    if message.page_size < 0:
        _refuse("page_size", "must be a whole number, at least 0")
    return message.page_size, _printable(message.page_token, "page_token")


def read_choice(number: int, name: str, choices: Mapping[T, Any]) -> T | None:
    """The domain's word for a value of an enum; None where it is left out."""
    if not number:
        return None
    found = next((choice for choice, value in choices.items() if int(value) == number), None)
    if found is None:
        _refuse(name, f"must be one of {', '.join(map(str, choices))}")
    return found


def time_of(value: Timestamp, name: str) -> str:
    """As JSON has it. Raises Problem `invalid_fields` for a moment that a calendar lacks."""
    try:
        return time_text(value.ToDatetime(UTC))
    except (ValueError, OverflowError):
        _refuse(name, "is not a time that exists")


def _refuse(name: str, message: str) -> NoReturn:
    raise field_problem(FieldError(name, message))


def _printable(text: str, name: str) -> str:
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        _refuse(name, f"must be at most {_LONGEST_TEXT} printable characters")
    return text


def _field_errors(problem: Problem) -> list[FieldError]:
    fields: Any = problem.extra["fields"]
    return [FieldError(one["field"], one["message"]) for one in fields]


def _whole(value: int, _name: str) -> Decimal:
    return Decimal(value)


def _as_it_is(value: object, _name: str) -> object:
    return value


def _choice_of(words: Mapping[int, str]) -> Callable[[int, str], str]:
    """An unknown value goes on as its number, which no door knows a word for, so that it is refused like one."""

    def word(value: int, _name: str) -> str:
        return words.get(value) or str(value)

    return word


_VALUES: Final[Mapping[str, Callable[[Any, str], object]]] = {
    "quantity": decimal_of,
    "percentage": decimal_of,
    "order_type": _choice_of(_ORDER_TYPES),
    "limit_price": decimal_of,
    "max_slippage_bps": _whole,
    "time_in_force": _choice_of(_TIMES_IN_FORCE),
    "working_timeout_seconds": _whole,
    "deadline": time_of,
    "expected_quantity": decimal_of,
    "reason": _as_it_is,
    "dry_run": _as_it_is,
}
"""The fields of a close that are fields of its body."""


@cache
def _message_fields(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    return tuple(field for field in descriptor.fields if field.message_type is not None)


def _unknown(message: Message, path: str) -> Iterator[str]:
    for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]
        yield f"{path}#{unknown.field_number}"
    for field in _message_fields(message.DESCRIPTOR):
        if field.is_repeated:
            for index, one in enumerate(getattr(message, field.name)):
                yield from _unknown(one, f"{path}{field.name}[{index}].")
        elif message.HasField(field.name):
            yield from _unknown(getattr(message, field.name), f"{path}{field.name}.")
