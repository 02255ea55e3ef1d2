"""Errors of gRPC as exceptions: with the details of google.rpc that close-api sends, or without, from the transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from closeflow_client.errors import CloseflowError, FieldError, error_of
from closeflow_client.retry import Failure, Unanswered

_DOMAIN: Final = "closeflow"
_DETAILS: Final = "grpc-status-details-bin"
_NAMES: Final[Mapping[int, str]] = {one.value[0]: one.name for one in grpc.StatusCode}
_NO_ANSWER: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"})
"""Without the service's details these are the transport's own: a connection that was lost, a deadline that passed."""
_NOT_CONNECTED: Final = ("failed to connect", "dns resolution failed", "name resolution")
_NOT_TRUSTED: Final = "certificate_verify_failed"


def failure_of(error: grpc.RpcError) -> Failure:
    """What a call that ended in an error says; it is one of a call, with code, details and trailers."""
    code, text, trailers = _facts(error)
    found = _told(trailers.get(_DETAILS))
    if found is not None:
        return found
    name = code.name
    if name in _NO_ANSWER:
        low = text.lower()
        return Unanswered(f"{name}: {text}", sent=not _is_unsent(low), hopeless=_NOT_TRUSTED in low)
    trace_id = trailers.get("trace-id")
    return error_of("unknown", text or name, status=name, trace_id=trace_id if isinstance(trace_id, str) else None)


def error_from(status: Status) -> CloseflowError:
    """The exception of an error with its details."""
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    told = False
    for packed in status.details:
        for detail in (info, bad, retry):
            if packed.Unpack(detail):  # False for another type.
                told |= detail is retry
    return error_of(
        info.reason.lower() if info.domain == _DOMAIN and info.reason else "unknown",
        status.message,
        status=_NAMES.get(status.code, str(status.code)),
        trace_id=info.metadata.get("trace_id"),
        fields=[FieldError(one.field, one.description) for one in bad.field_violations],
        members=dict(info.metadata),
        should_retry=True if told else None,
        retry_after_s=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if told else None,
    )


def _told(details: str | bytes | None) -> CloseflowError | None:
    """The service's own error, if it is one."""
    if not isinstance(details, bytes):
        return None
    try:
        error = error_from(Status.FromString(details))
    except DecodeError:
        return None
    return None if error.code == "unknown" else error


def _facts(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, Mapping[str, str | bytes]]:
    """Of either kind of call: both have these three, and no class in common that says so."""
    call: Any = error
    return call.code(), call.details() or "", dict(call.trailing_metadata() or ())


def _is_unsent(text: str) -> bool:
    return any(text.startswith(one) for one in _NOT_CONNECTED)
