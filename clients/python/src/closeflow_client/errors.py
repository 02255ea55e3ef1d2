"""What a call may raise: a class for each code of close-api, and a few for what no answer says.

The class statements are the table: `code=` enters a class into it. A code that a newer server has and this client has
not is a plain `CloseflowError` with that code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

if TYPE_CHECKING:
    from closeflow_client.values import CloseRequest


TEMPORARY: Final[frozenset[int | str | None]] = frozenset(
    {408, 429, 502, 503, 504, "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
)
"""The statuses of what passes; everything else would be refused again."""
_POINTED_AT: Final = ("reason", "reasons", "scope", "active_close_request_id", "quantity", "version")
"""The members that messages point at; their own words need no name before them."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """A field that cannot be used, by the name that the server gives it, and how to mend it."""

    field: str
    message: str


class CloseflowError(Exception):
    """The base of all of them. What is not known of a case is None or empty.

    `status` is the HTTP status, or the name of the gRPC status. `key` is the idempotency key of the close.
    `outcome_unknown` says that the close (or cancel) may have been accepted all the same, because an attempt of this
    call got no answer: the same call with the same key finds out and does nothing twice. `should_retry` is what the
    server says of the same call made later, after at least `retry_after_s` seconds; None if it says nothing.
    `members` are all members of the error body.
    """

    classes: ClassVar[dict[str, type[CloseflowError]]] = {}
    code: str = "unknown"

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        if code is not None:
            cls.code = code
            CloseflowError.classes[code] = cls

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        status: int | str | None = None,
        key: str | None = None,
        trace_id: str | None = None,
        fields: Sequence[FieldError] = (),
        members: Mapping[str, Any] | None = None,
        should_retry: bool | None = None,
        retry_after_s: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.status = status
        self.key = key
        self.trace_id = trace_id
        self.fields = tuple(fields)
        self.members = dict(members or {})
        self.should_retry = should_retry
        self.retry_after_s = retry_after_s
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        parts = [f"{self.code}: {self.message.removesuffix('.')}"]
        parts += [f"{one.field}: {one.message}" for one in self.fields]
        parts += [text for name in _POINTED_AT if (text := _member_text(name, self.members.get(name)))]
        if self.outcome_unknown:
            parts.append(
                "an attempt got no answer and may have been accepted; the same call with the same key finds out"
            )
        facts = {"status": self.status, "key": self.key, "trace id": self.trace_id}
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        return "; ".join(parts) + (f" ({known})" if known else "")

    @property
    def temporary(self) -> bool:
        """Whether the same call with the same key may do better later, or finds what became of this one."""
        return self.outcome_unknown or (self.status in TEMPORARY and self.should_retry is not False)

    def copy(self) -> CloseflowError:
        """Another one with the same facts: each close of a batch that failed as a whole has its own."""
        made = type(self)(self.message)
        made.__dict__.update(self.__dict__)
        return made


def _member_text(name: str, value: object) -> str:
    if value is None:
        return ""
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if name in ("reason", "reasons") else f"{name} {text}"


def error_of(code: str, message: str, **facts: Any) -> CloseflowError:
    """The exception of a code; `facts` are those of `CloseflowError`."""
    return CloseflowError.classes.get(code, CloseflowError)(message, code=code, **facts)


class OutcomeUnknown(CloseflowError, code="outcome_unknown"):
    """No answer came while it was retried: whether it was accepted is unknown. The same key finds it. The last failure
    is the `__cause__`."""


class ConnectionFailed(CloseflowError, code="connection_failed"):
    """The server was not reached, or did not answer a question, while it was retried; nothing was changed."""

    @property
    def temporary(self) -> bool:
        """It may be back later."""
        return True


class AnswerUnreadable(CloseflowError, code="answer_unreadable"):
    """Something answered that this client does not understand; it may not be close-api."""


class NotFinal(CloseflowError, code="not_final"):
    """`wait` came to the end of its time; `request` is the close request as it was then."""

    request: CloseRequest


class MalformedBody(CloseflowError, code="malformed_body"):
    """The server could not read the body."""


class InvalidFields(CloseflowError, code="invalid_fields"):
    """Some values cannot be used: `fields` says which, and why."""


class BodyTooLarge(CloseflowError, code="body_too_large"):
    """The call is larger than the server reads."""


class BodyTooSlow(CloseflowError, code="body_too_slow"):
    """The call arrived too slowly, and was given up."""


class MalformedRequest(CloseflowError, code="malformed_request"):
    """The server could not tell where the call ends."""


class LengthRequired(CloseflowError, code="length_required"):
    """The call had a body without a length; something between here and the server took it away."""


class UnsupportedMediaType(CloseflowError, code="unsupported_media_type"):
    """The body was not JSON as the server reads it."""


class ExpectationFailed(CloseflowError, code="expectation_failed"):
    """The call had an `Expect` that the server does not know."""


class Unauthenticated(CloseflowError, code="unauthenticated"):
    """The token is missing, expired or not for this service."""


class Forbidden(CloseflowError, code="forbidden"):
    """The token lacks the scope `scope`."""

    @property
    def scope(self) -> str | None:
        """The scope that the call needs."""
        scope = self.members.get("scope")
        return scope if isinstance(scope, str) else None


class RateLimited(CloseflowError, code="rate_limited"):
    """More than this caller may ask for now."""


class IdempotencyKeyMissing(CloseflowError, code="idempotency_key_missing"):
    """The server saw no key."""


class IdempotencyKeyInvalid(CloseflowError, code="idempotency_key_invalid"):
    """The server does not take the key."""


class IdempotencyKeyReused(CloseflowError, code="idempotency_key_reused"):
    """The key belongs to another close of this position. Nothing was accepted now."""


class NotFound(CloseflowError, code="not_found"):
    """It does not exist, or is another account's: the server does not say which."""


class MethodNotAllowed(CloseflowError, code="method_not_allowed"):
    """The address does not answer this call; the server may be older than this client."""


class TradingHalted(CloseflowError, code="trading_halted"):
    """An operator has halted trading. Nothing was accepted."""


class PositionClosed(CloseflowError, code="position_closed"):
    """There is nothing left to close."""


class ZeroQuantity(CloseflowError, code="zero_quantity"):
    """The position is open with nothing in it."""


class PositionAlreadyClosing(CloseflowError, code="position_already_closing"):
    """Another close of the position is not finished."""

    @property
    def active_close_request_id(self) -> UUID | None:
        """The close request to follow instead."""
        with suppress(ValueError):
            return UUID(str(self.members.get("active_close_request_id")))
        return None


class ExposureUnproven(CloseflowError, code="exposure_unproven"):
    """An earlier order of the position may still fill; an operator has to settle it first."""


class ExpectedQuantityMismatch(CloseflowError, code="expected_quantity_mismatch"):
    """The position is not as `expected_quantity` or `if_version` said. Read it again, decide anew, with a new key."""

    @property
    def quantity(self) -> Decimal | None:
        """The position's quantity now."""
        with suppress(InvalidOperation):
            return Decimal(str(self.members.get("quantity")))
        return None

    @property
    def version(self) -> int | None:
        """The position's version now."""
        with suppress(ValueError):
            return int(str(self.members.get("version")))
        return None


class CloseRequestFinished(CloseflowError, code="close_request_finished"):
    """The close request is over and cannot be cancelled any more."""


class OperationRefused(CloseflowError, code="operation_refused"):
    """Something stands in the way of the operation; see `members`."""


class Overloaded(CloseflowError, code="overloaded"):
    """Too many closes were waiting. Nothing was accepted."""


class Unavailable(CloseflowError, code="unavailable"):
    """The server's database gave no answer in time."""


class InternalError(CloseflowError, code="internal_error"):
    """A defect of the server, in its logs under the trace id."""
