"""Every error a caller can get: its code, its HTTP status, its gRPC code. The one table both doors answer from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from closeflow.domain.close.accept import (
    AlreadyClosing,
    ExpectationFailed,
    ExposureUnproven,
    FieldInvalid,
    KeyReused,
    NotFound,
    PositionClosed,
    Refused,
    TradingHalted,
    ZeroQuantity,
)
from closeflow.domain.text import decimal_text


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
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
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
    EXPECTED_QUANTITY_MISMATCH = "expected_quantity_mismatch"
    CLOSE_REQUEST_FINISHED = "close_request_finished"
    OPERATION_REFUSED = "operation_refused"
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
    should_retry: bool = False
    """Whether the same call with the same key may help; it never does harm."""


STATUSES: Final[Mapping[Code, Status]] = {
    Code.MALFORMED_BODY: Status(400, "INVALID_ARGUMENT", "The body is not a JSON object; send one, or none."),
    Code.INVALID_FIELDS: Status(422, "INVALID_ARGUMENT", "Some values cannot be used; see fields."),
    Code.BODY_TOO_LARGE: Status(
        413, "INVALID_ARGUMENT", "The body is larger than this call takes: 64 KiB, a batch 1 MiB."
    ),
    Code.BODY_TOO_SLOW: Status(
        408, "DEADLINE_EXCEEDED", "The body did not arrive in time; send the request again.", None, True
    ),
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
    Code.UNAUTHENTICATED: Status(
        401, "UNAUTHENTICATED", "Send Authorization: Bearer with a token that is valid now, issued for this service."
    ),
    Code.FORBIDDEN: Status(
        403, "PERMISSION_DENIED", "The token does not allow this call; scope names what it needs, reason says why."
    ),
    Code.RATE_LIMITED: Status(
        429, "RESOURCE_EXHAUSTED", "More closes than this caller may ask for; repeat with the same key later.", 1, True
    ),
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
        True,
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
    Code.EXPECTED_QUANTITY_MISMATCH: Status(
        412, "ABORTED", "The position is not as the call expects it; read it again and decide anew, under a new key."
    ),
    Code.CLOSE_REQUEST_FINISHED: Status(
        409, "FAILED_PRECONDITION", "The close request is over and cannot be cancelled any more; see reasons."
    ),
    Code.OPERATION_REFUSED: Status(
        409, "FAILED_PRECONDITION", "Something stands in the way of this operation; see reasons."
    ),
    Code.OVERLOADED: Status(
        503, "RESOURCE_EXHAUSTED", "Too many closes are waiting; repeat with the same Idempotency-Key.", 1, True
    ),
    Code.UNAVAILABLE: Status(
        503, "UNAVAILABLE", "The database gave no answer in time; repeat with the same Idempotency-Key.", 1, True
    ),
    Code.INTERNAL_ERROR: Status(
        500,
        "INTERNAL",
        "A defect of this service, logged under the trace id; repeat with the same key to see what was done.",
    ),
}


class Problem(Exception):
    """An answer that is an error. `extra` are its own members, `headers` those of the response over HTTP, and
    `retry_after_s` the seconds to wait, where they are not those of the code."""

    def __init__(
        self,
        code: Code,
        *,
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code.value)
        self.code = code
        self.extra = extra or {}
        self.headers = headers or {}
        self.retry_after_s = STATUSES[code].retry_after_s if retry_after_s is None else retry_after_s


MOST_FIELD_ERRORS: Final = 20
"""So many are told of one call: who sends a hundred thousand wrong names is not answered with as many sentences."""


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
            return Problem(
                Code.POSITION_ALREADY_CLOSING, extra={} if active is None else {"active_close_request_id": active}
            )
        case ExposureUnproven():
            return Problem(Code.EXPOSURE_UNPROVEN)
        case ExpectationFailed(quantity=quantity, version=version):
            extra = {"quantity": decimal_text(quantity), "version": version}
            return Problem(Code.EXPECTED_QUANTITY_MISMATCH, extra=extra)
        case FieldInvalid(field=name, message=message):
            return field_problem(FieldError(name, message))
        case _:
            assert_never(refused)
