"""What routes say of themselves in the OpenAPI: their parameters, their bodies, and every error by its code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from close_api.close_body import MAX_POSITION_ID
from close_api.errors import STATUSES, Code, Problem, Status
from close_api.rest.problems import PROBLEM_JSON, ProblemAnswer, SeedErrorAnswer, problem_members, seed_body

Described = dict[str, Any]

DESCRIPTION: Final = """Closes trading positions, each close once, however often it is sent.

Every call but those for operations carries `Authorization: Bearer` and a token, whose scopes say what it may do
(`close:write`, which includes reading; `close:read`; `close:operate`) and whose claim `accounts` says for which
accounts. What is not there and what is of another account are answered alike: 404 with the same bytes.

Quantities and prices are JSON numbers and are read and written as decimals; use a reader that keeps their digits.
Times are RFC 3339 in UTC. What may be left out is left out, never null. A field, parameter or header that would change
what is meant and is not understood is refused, never passed over; in answers, pass over members that are new.

An error is a problem document (RFC 9457) with a `code`, and the header `Should-Retry` says whether the same call with
the same key may help. What is no call at all is answered in plain text and closes the connection: 400, 408 for a head
that is too slow, 431 for one above 32 KiB, 503 for more connections than the service takes.
"""
CLOSES: Final = "Closes"
CLOSE_REQUESTS: Final = "Close requests"
POSITIONS: Final = "Positions"
OVERVIEW: Final = "Overview"
OPERATORS: Final = "Operators"
SERVICE: Final = "Service"
TAGS: Final[Mapping[str, str]] = {
    CLOSES: "Close positions. A close is answered when it is durable; orders are sent after that.",
    CLOSE_REQUESTS: "What became of a close, and how to stop it.",
    POSITIONS: "What there is to close.",
    OVERVIEW: "Who calls, and what stands around the closes: what needs a person, and what is out of order.",
    OPERATORS: "For people who look after the service (scope `close:operate`): what needs a person, and what one may "
    "do, each with a reason that is kept. Not there where the service has no login for it.",
    SERVICE: "For those who run the service; these need no token.",
}

ANY: Final = (
    Code.MALFORMED_BODY,
    Code.MALFORMED_REQUEST,
    Code.EXPECTATION_FAILED,
    Code.INVALID_FIELDS,
    Code.INTERNAL_ERROR,
)
"""What every route refuses before it is asked, and a defect."""
READ: Final = (*ANY, Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.UNAVAILABLE)
WRITE: Final = (
    *ANY,
    Code.UNAUTHENTICATED,
    Code.FORBIDDEN,
    Code.BODY_TOO_SLOW,
    Code.LENGTH_REQUIRED,
    Code.BODY_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.RATE_LIMITED,
)
CLOSE: Final = (
    *WRITE,
    Code.IDEMPOTENCY_KEY_MISSING,
    Code.IDEMPOTENCY_KEY_INVALID,
    Code.IDEMPOTENCY_KEY_REUSED,
    Code.NOT_FOUND,
    Code.TRADING_HALTED,
    Code.POSITION_CLOSED,
    Code.ZERO_QUANTITY,
    Code.POSITION_ALREADY_CLOSING,
    Code.EXPOSURE_UNPROVEN,
    Code.EXPECTED_QUANTITY_MISMATCH,
    Code.OVERLOADED,
    Code.UNAVAILABLE,
)
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
"""That of the examples."""
POSITION_PARAMETER: Final[Described] = {
    "name": "position_id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_POSITION_ID},
    "example": 4711,
}
REQUEST_PARAMETER: Final[Described] = {
    "name": "close_request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
    "example": "01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20",
}
HEADERS: Final[Mapping[str, Described]] = {
    "Trace-Id": {
        "description": "The trace of the call (W3C Trace Context): that of its traceparent, or a new one. The service "
        "logs it; name it when you ask about a call.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": TRACE_ID,
    },
    "RateLimit-Policy": {
        "description": "How many closes (q) the caller may ask for within how many seconds (w); IETF draft "
        "ratelimit-headers. On every answer to a caller that is known.",
        "schema": {"type": "string"},
        "example": '"closes";q=1000;w=10',
    },
    "RateLimit": {
        "description": "How many closes are left (r), and in how many seconds there is more (t).",
        "schema": {"type": "string"},
        "example": '"closes";r=988;t=1',
    },
    "Should-Retry": {
        "description": "Whether the same call with the same key may help. It never does harm.",
        "required": True,
        "schema": {"type": "string", "enum": ["true", "false"]},
        "example": "false",
    },
    "Retry-After": {
        "description": "Seconds to wait before the call is repeated.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
        "example": 1,
    },
    "WWW-Authenticate": {
        "description": "What is missing (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="closeflow", error="invalid_token", error_description="the token has expired"',
    },
    "Location": {
        "description": "Where to follow the close request.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
        "example": "/v1/close-requests/01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20",
    },
    "ETag": {
        "description": "The version of the position, for If-Match.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
        "example": '"3"',
    },
    "Idempotency-Replayed": {
        "description": "true where the key was used for this close before; absent otherwise.",
        "schema": {"type": "string", "enum": ["true"]},
        "example": "true",
    },
    "Accept": {
        "description": "What a body may be, where its type is not.",
        "schema": {"type": "string"},
        "example": "application/json",
    },
    "Accept-Encoding": {
        "description": "How a body may be coded, where it is compressed.",
        "schema": {"type": "string"},
        "example": "identity",
    },
}
"""Of answers."""
COUNTED: Final = ("RateLimit-Policy", "RateLimit")
_OF_STATUS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    415: ("Accept", "Accept-Encoding"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_NEVER_COUNTED: Final = frozenset({401, 408, 411, 413, 415, 417})
"""Answered before the caller is known."""
_MEMBERS: Final[Mapping[Code, Mapping[str, object]]] = {
    Code.INVALID_FIELDS: {"fields": [{"field": "quantity", "message": "must not exceed the position: 10"}]},
    Code.POSITION_ALREADY_CLOSING: {"active_close_request_id": "01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20"},
    Code.MALFORMED_BODY: {"reason": "not an object"},
    Code.MALFORMED_REQUEST: {"reason": "Content-Length is not one whole number"},
    Code.UNAUTHENTICATED: {"reason": "the token has expired"},
    Code.FORBIDDEN: {"scope": "close:write"},
    Code.EXPECTED_QUANTITY_MISMATCH: {"quantity": "10", "version": 4},
    Code.CLOSE_REQUEST_FINISHED: {"reasons": ["it is completed"]},
    Code.OPERATION_REFUSED: {"reasons": ["an order of it may still fill 3"]},
}


def problems(*codes: Code, seed: bool = False) -> dict[int | str, Described]:
    """The errors that a route answers, by status, each code with an example."""
    by_status: dict[int, dict[Code, Status]] = {}
    for code, known in STATUSES.items():
        if code in codes:
            by_status.setdefault(known.http, {})[code] = known
    return {status: _problem(status, of, seed=seed) for status, of in sorted(by_status.items())}


def answered(description: str, *headers: str, **content: object) -> Described:
    """What a route says of an answer that is no error; `content` is what FastAPI takes beside."""
    return {"description": description, "headers": headers_of("Trace-Id", *COUNTED, *headers), **content}


def headers_of(*names: str) -> Described:
    """These headers of an answer, which are described once for all."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def takes(model: type[BaseModel], examples: Mapping[str, object], *, required: bool = False) -> Described:
    """The body that a route reads by itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"required": required, "content": {"application/json": {"schema": schema, "examples": named(examples)}}}


def named(examples: Mapping[str, object]) -> Described:
    """Examples by their names in words."""
    return {
        re.sub(r"\W+", "_", name): {"summary": f"{name[0].upper()}{name[1:]}", "value": value}
        for name, value in examples.items()
    }


def error_examples() -> Described:
    """One of every code in both forms, which the routes refer to."""
    return {
        _example_name(code, seed=seed): {"summary": code.value, "value": _example(code, seed=seed)}
        for seed in (False, True)
        for code in Code
    }


def _problem(status: int, codes: Mapping[Code, Status], *, seed: bool) -> Described:
    model: type[BaseModel] = SeedErrorAnswer if seed else ProblemAnswer
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    examples = {code.value: {"$ref": f"#/components/examples/{_example_name(code, seed=seed)}"} for code in codes}
    counted = () if status in _NEVER_COUNTED else COUNTED
    return {
        "description": "\n".join(_said(codes)),
        "headers": headers_of("Trace-Id", "Should-Retry", *_OF_STATUS.get(status, ()), *counted),
        "content": {"application/json" if seed else PROBLEM_JSON: {"schema": schema, "examples": examples}},
    }


def _said(codes: Mapping[Code, Status]) -> Iterable[str]:
    return (f"- `{code}`: {known.message}" for code, known in codes.items())


def _example_name(code: Code, *, seed: bool) -> str:
    return f"seed_{code}" if seed else code.value


def _example(code: Code, *, seed: bool) -> Mapping[str, object]:
    problem = Problem(code, extra=_MEMBERS.get(code))
    return seed_body(problem) if seed else problem_members(problem, TRACE_ID)
