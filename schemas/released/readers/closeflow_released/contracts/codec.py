"""Bytes to model and back, with one kind of error for everything that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from closeflow_released.contracts.cloudevents import parse_schema_name
from closeflow_released.contracts.wire import MAX_BYTES, WireModel

M = TypeVar("M", bound=WireModel)

_REASON_LENGTH: Final = 500


class ErrorClass(StrEnum):
    """Why a record cannot be read; the value of the dead letter's `error_class` header."""

    NULL_VALUE = "null_value"
    TOO_LARGE = "too_large"
    BAD_ENCODING = "bad_encoding"
    BAD_JSON = "bad_json"
    WRONG_SCHEMA = "wrong_schema"
    WRONG_VERSION = "wrong_version"
    MISSING_FIELD = "missing_field"
    BAD_VALUE = "bad_value"
    UNKNOWN_VALUE = "unknown_value"
    UNREADABLE_RECORD = "unreadable_record"
    """Not its value but what Kafka keeps around it: its time, a header name, its batch's checksum or compression."""
    CONTRADICTION = "contradiction"
    """Readable, but not true of the order it names: only a use-case can find this."""


class Undecodable(Exception):
    """This record can never be read as what its topic carries. `reason` names the fields, not their whole content."""

    def __init__(self, reason: str, error_class: ErrorClass) -> None:
        super().__init__(reason)
        self.reason = reason[:_REASON_LENGTH]
        self.error_class = error_class


class UnknownValue(Undecodable):
    """The shape is right, but an enum has a value of a newer writer: to be parked until this reader knows it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, ErrorClass.UNKNOWN_VALUE)


def encode(model: WireModel) -> bytes:
    """JSON in UTF-8; absent fields are left out."""
    return model.model_dump_json(exclude_none=True).encode()


def decode(model: type[M], value: bytes | None, headers: Iterable[tuple[str, bytes | None]] = ()) -> M:
    """Read a record's value, or raise `Undecodable`. Nothing else is raised, whatever the bytes are.

    Without a `ce_dataschema` header the value is taken to be of the model's version.
    """
    if value is None:
        raise Undecodable("the record has no value", ErrorClass.NULL_VALUE)
    if len(value) > MAX_BYTES:
        raise Undecodable(f"{len(value)} bytes; at most {MAX_BYTES} are read", ErrorClass.TOO_LARGE)
    _check_schema(model, headers)
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(f"not UTF-8: {error.reason} at byte {error.start}", ErrorClass.BAD_ENCODING) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _explain(error) from None


def peek(value: bytes | None) -> Mapping[str, object]:
    """The fields of a value that `decode` refused, as far as they can be read: enough to find the order it is about."""
    if value is None or len(value) > MAX_BYTES:
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_schema(model: type[WireModel], headers: Iterable[tuple[str, bytes | None]]) -> None:
    for name, raw in headers:
        if name != "ce_dataschema" or raw is None:
            continue
        found = parse_schema_name(raw)
        if found is None or found[0] != model.SCHEMA:
            raise Undecodable(f"ce_dataschema is {raw[:80]!r}, not {model.SCHEMA}", ErrorClass.WRONG_SCHEMA)
        if found[1] != model.VERSION:
            reason = f"version {found[1]} of {model.SCHEMA}; this reader knows v{model.VERSION}"
            raise Undecodable(reason, ErrorClass.WRONG_VERSION)


def _explain(error: ValidationError) -> Undecodable:
    found = error.errors(include_url=False, include_context=False)
    if all(item["type"] == "enum" and isinstance(item["input"], str) for item in found):
        return UnknownValue("; ".join(f"{_place(item)}: {item['input'][:80]!r} is not known" for item in found))
    kinds = {item["type"] for item in found}
    reason = "; ".join(f"{_place(item)}: {item['msg'].removeprefix('Value error, ')}" for item in found[:3])
    if len(found) > 3:
        reason += f"; and {len(found) - 3} more"
    if "json_invalid" in kinds:
        return Undecodable(reason, ErrorClass.BAD_JSON)
    return Undecodable(reason, ErrorClass.MISSING_FIELD if "missing" in kinds else ErrorClass.BAD_VALUE)


def _place(item: ErrorDetails) -> str:
    return ".".join(map(str, item["loc"])) or "value"
