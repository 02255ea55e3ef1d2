"""How a Problem is told over gRPC: a code, a message, and details of google.rpc (AIP-193)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from close_api.errors import STATUSES, Code, Problem

DOMAIN: Final = "closeflow"
DETAILS_KEY: Final = "grpc-status-details-bin"
"""The metadata that carries a google.rpc.Status with the details."""
OVER_HTTP_ONLY: Final = frozenset(
    {
        Code.MALFORMED_REQUEST,
        Code.LENGTH_REQUIRED,
        Code.UNSUPPORTED_MEDIA_TYPE,
        Code.EXPECTATION_FAILED,
        Code.METHOD_NOT_ALLOWED,
        Code.OPERATION_REFUSED,
    }
)
"""Codes that no call of gRPC is answered with: about HTTP itself, or of routes that are not here."""
_SAID: Final[Mapping[Code, str]] = {
    Code.MALFORMED_BODY: "The message cannot be read as the request of this call; make it from close.proto.",
    Code.BODY_TOO_LARGE: "The message is larger than this call takes: 64 KiB, one of ClosePositions 1 MiB.",
    Code.BODY_TOO_SLOW: "The message did not arrive in time; send the call again.",
    Code.IDEMPOTENCY_KEY_MISSING: "Set idempotency_key: one new value for each close you mean.",
    Code.IDEMPOTENCY_KEY_INVALID: "idempotency_key must be 1 to 100 printable ASCII characters.",
}
_KEY_FIELD: Final = "idempotency_key"
_FIELDS: Final = "fields"
_KEY_CODES: Final = frozenset({Code.IDEMPOTENCY_KEY_MISSING, Code.IDEMPOTENCY_KEY_INVALID})
_TYPES: Final = "type.googleapis.com/"


def answered_codes() -> list[Code]:
    """The codes of gRPC's answers, in the order of the table."""
    return [code for code in STATUSES if code not in OVER_HTTP_ONLY]


def said(code: Code) -> str:
    """What is wrong and how to mend it, in the words of this door."""
    return _SAID.get(code) or STATUSES[code].message.replace("Idempotency-Key", _KEY_FIELD)


def grpc_code(code: Code) -> grpc.StatusCode:
    """The status code of a code."""
    return _CODES[code]


def status_of(problem: Problem, trace_id: str, *, message: str | None = None) -> Status:
    """The error with all its details. Two problems that are equal differ in the trace id alone."""
    code = problem.code
    text = message or said(code)
    info = ErrorInfo(reason=code.value.upper(), domain=DOMAIN, metadata=_metadata(problem.extra, trace_id))
    status = Status(code=_NUMBERS[code], message=text, details=[_packed(info)])
    violations = _violations(problem, text)
    if violations:
        status.details.append(_packed(BadRequest(field_violations=violations)))
    if problem.retry_after_s is not None:
        status.details.append(_packed(RetryInfo(retry_delay=Duration(seconds=problem.retry_after_s))))
    return status


def _metadata(extra: Mapping[str, object], trace_id: str) -> dict[str, str]:
    """Every member as text. Fields have a detail of their own."""
    found = {name: _text(value) for name, value in extra.items() if name != _FIELDS and value is not None}
    found["trace_id"] = trace_id
    return found


def _text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _violations(problem: Problem, text: str) -> list[BadRequest.FieldViolation]:
    if problem.code in _KEY_CODES:
        return [BadRequest.FieldViolation(field=_KEY_FIELD, description=text)]
    fields: Any = problem.extra.get(_FIELDS, ())
    listed: Sequence[Mapping[str, str]] = fields
    return [BadRequest.FieldViolation(field=one["field"], description=one["message"]) for one in listed]


def _packed(detail: Message) -> AnyMessage:
    return AnyMessage(type_url=_TYPES + detail.DESCRIPTOR.full_name, value=detail.SerializeToString(deterministic=True))


_CODES: Final[Mapping[Code, grpc.StatusCode]] = {code: grpc.StatusCode[STATUSES[code].grpc] for code in STATUSES}
_NUMBERS: Final[Mapping[Code, int]] = {code: one.value[0] for code, one in _CODES.items()}
