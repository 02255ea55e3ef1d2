"""Every error a caller can get: its code, its HTTP status, its gRPC code. The one table both doors answer from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from closeflow.domain.close.accept import (
    AlreadyClosing,
    ExposureUnproven,
    KeyReused,
    NotFound,
    PositionClosed,
    QuantityInvalid,
    Refused,
    TradingHalted,
    ZeroQuantity,
)


class Code(StrEnum):
    """What went wrong, as callers read it in `error`: released names, which never change."""

    MALFORMED_BODY = "malformed_body"
    INVALID_FIELDS = "invalid_fields"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    MALFORMED_REQUEST = "malformed_request"
    LENGTH_REQUIRED = "length_required"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    EXPECTATION_FAILED = "expectation_failed"
    IDEMPOTENCY_KEY_MISSING = "idempotency_key_missing"
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    NOT_FOUND = "not_found"
    TRADING_HALTED = "trading_halted"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    POSITION_CLOSED = "position_closed"
    ZERO_QUANTITY = "zero_quantity"
    POSITION_ALREADY_CLOSING = "position_already_closing"
    EXPOSURE_UNPROVEN = "exposure_unproven"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Status:
    """How both doors answer a code."""

    http: int
    grpc: str
    message: str
    """What is wrong and how to mend it."""
    retry_after_s: int | None = None


STATUSES: Final[Mapping[Code, Status]] = {
    Code.MALFORMED_BODY: Status(400, "INVALID_ARGUMENT", "The body is not a JSON object; send one, or none."),
    Code.INVALID_FIELDS: Status(422, "INVALID_ARGUMENT", "Some values cannot be used; see fields."),
    Code.BODY_TOO_LARGE: Status(413, "INVALID_ARGUMENT", "The body is larger than 64 KiB; send only the close."),
    Code.BODY_TOO_SLOW: Status(408, "DEADLINE_EXCEEDED", "The body did not arrive in time; send the request again."),
    Code.MALFORMED_REQUEST: Status(
        400, "INVALID_ARGUMENT", "Where the body ends cannot be said for certain; send it with one Content-Length."
    ),
    Code.LENGTH_REQUIRED: Status(
        411, "INVALID_ARGUMENT", "A call of HTTP/1.0 needs a Content-Length; 0 when it has no body."
    ),
    Code.UNSUPPORTED_MEDIA_TYPE: Status(
        415, "INVALID_ARGUMENT", "Send the body as application/json in UTF-8, not compressed, or send none."
    ),
    Code.EXPECTATION_FAILED: Status(417, "INVALID_ARGUMENT", "Only Expect: 100-continue is understood."),
    Code.IDEMPOTENCY_KEY_MISSING: Status(
        400, "INVALID_ARGUMENT", "Send the header Idempotency-Key: one new value for each close you mean."
    ),
    Code.IDEMPOTENCY_KEY_INVALID: Status(
        400,
        "INVALID_ARGUMENT",
        "Idempotency-Key must be 1 to 100 printable ASCII characters, bare or in double quotes.",
    ),
    Code.IDEMPOTENCY_KEY_REUSED: Status(
        422,
        "FAILED_PRECONDITION",
        "This Idempotency-Key was used for a different close of this position; use a new one.",
    ),
    Code.NOT_FOUND: Status(404, "NOT_FOUND", "There is nothing here that you may see."),
    Code.TRADING_HALTED: Status(
        503,
        "UNAVAILABLE",
        "Trading is halted by an operator and nothing was accepted; repeat with the same Idempotency-Key.",
        30,
    ),
    Code.METHOD_NOT_ALLOWED: Status(405, "UNIMPLEMENTED", "This address does not answer this method; see Allow."),
    Code.POSITION_CLOSED: Status(409, "FAILED_PRECONDITION", "The position is closed; there is nothing left to close."),
    Code.ZERO_QUANTITY: Status(
        400, "FAILED_PRECONDITION", "The position has zero quantity; there is nothing to close."
    ),
    Code.POSITION_ALREADY_CLOSING: Status(
        409, "FAILED_PRECONDITION", "Another close of this position is not finished; follow active_close_request_id."
    ),
    Code.EXPOSURE_UNPROVEN: Status(
        409,
        "FAILED_PRECONDITION",
        "An earlier order of this position may still fill, or an earlier close of it is frozen; an operator has to "
        "settle it before a new close.",
    ),
    Code.OVERLOADED: Status(
        503, "RESOURCE_EXHAUSTED", "Too many closes are waiting; repeat with the same Idempotency-Key.", 1
    ),
    Code.UNAVAILABLE: Status(
        503, "UNAVAILABLE", "The database gave no answer in time; repeat with the same Idempotency-Key.", 1
    ),
    Code.INTERNAL_ERROR: Status(
        500, "INTERNAL", "A defect of this service, logged under the trace id; nothing was done by this call."
    ),
}


class Problem(Exception):
    """An answer that is an error. `extra` joins `detail`, `headers` the response."""

    def __init__(
        self, code: Code, *, extra: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code.value)
        self.code = code
        self.extra = extra or {}
        self.headers = headers or {}


def field_problem(*errors: FieldError) -> Problem:
    """`invalid_fields` with what is wrong in each."""
    return Problem(
        Code.INVALID_FIELDS, extra={"fields": [{"field": one.name, "message": one.message} for one in errors]}
    )


@dataclass(frozen=True, slots=True)
class FieldError:
    """A field by the name that the caller used, and how to mend it."""

    name: str
    message: str


def problem_of(refused: Refused) -> Problem:
    """How a refusal of the domain is answered."""
    match refused:
        case NotFound():
            return Problem(Code.NOT_FOUND)
        case KeyReused():
            return Problem(Code.IDEMPOTENCY_KEY_REUSED)
        case TradingHalted():
            return Problem(Code.TRADING_HALTED)
        case PositionClosed():
            return Problem(Code.POSITION_CLOSED)
        case ZeroQuantity():
            return Problem(Code.ZERO_QUANTITY)
        case AlreadyClosing(active_request_id=active):
            return Problem(Code.POSITION_ALREADY_CLOSING, extra={"active_close_request_id": active})
        case ExposureUnproven():
            return Problem(Code.EXPOSURE_UNPROVEN)
        case QuantityInvalid(message=message):
            return field_problem(FieldError("quantity", message))
        case _:
            assert_never(refused)
