"""How an error is written: RFC 9457 under /v1, the seed's own form on the seed's route."""

from __future__ import annotations

from html import escape
from typing import Final

import orjson
from fastapi import Response
from pydantic import BaseModel, Field
from starlette.requests import Request

from close_api.errors import STATUSES, Code, Problem
from close_api.tracing import trace_of

PROBLEM_JSON: Final = "application/problem+json"
ERROR_PAGE: Final = "/docs/errors"
_SEED: Final = "/api/"
_TITLES: Final = {code: code.value.replace("_", " ").capitalize() for code in Code}


class FieldProblem(BaseModel):
    """One value that cannot be used, by the name that the caller gave it."""

    field: str
    message: str


class ProblemAnswer(BaseModel):
    """What went wrong (RFC 9457). Some codes have members of their own, such as `reason`, `reasons` or `scope`."""

    type: str = Field(description="Where the code is explained, relative to this service.")
    title: str
    status: int
    detail: str = Field(description="What is wrong and how to mend it.")
    code: Code
    trace_id: str
    fields: list[FieldProblem] | None = None
    active_close_request_id: str | None = None


class SeedDetail(BaseModel):
    """The code for programs, the message for people; some codes have members of their own beside them."""

    error: Code
    message: str


class SeedErrorAnswer(BaseModel):
    """The seed's error body; only a zero quantity answers with a plain text instead of an object."""

    detail: SeedDetail | str


def problem_members(problem: Problem, trace_id: str) -> dict[str, object]:
    """The members of a problem document."""
    status = STATUSES[problem.code]
    return {
        "type": f"{ERROR_PAGE}#{problem.code}",
        "title": _TITLES[problem.code],
        "status": status.http,
        "detail": status.message,
        "code": problem.code,
        "trace_id": trace_id,
        **problem.extra,
    }


def problem_response(request: Request, problem: Problem) -> Response:
    """The answer to a call that failed, in the form of its route."""
    status = STATUSES[problem.code]
    headers = dict(problem.headers)
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(problem.retry_after_s)
    headers["should-retry"] = "true" if status.should_retry else "false"
    if request.url.path.startswith(_SEED):
        detail: object = {"error": problem.code, "message": status.message, **problem.extra}
        if problem.code is Code.ZERO_QUANTITY:
            detail = status.message
        return Response(orjson.dumps({"detail": detail}), status.http, headers, "application/json")
    body = orjson.dumps(problem_members(problem, trace_of(request).trace_id))
    return Response(body, status.http, headers, PROBLEM_JSON)


def error_page() -> bytes:
    """Every code with its statuses and what to do, as HTML; `type` of a problem points into it."""
    rows = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status.http}</td><td>{status.grpc}</td>'
        f"<td>{'yes' if status.should_retry else 'no'}</td><td>{escape(status.message)}</td></tr>"
        for code, status in STATUSES.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>close-api: errors</title>'
        "<style>body{font:16px/1.5 sans-serif;margin:2rem}td,th{padding:.3rem .8rem;text-align:left;vertical-align:top}"
        "tr:target{background:#ffd}</style><h1>Errors of close-api</h1><table><tr><th>code</th><th>HTTP</th>"
        f"<th>gRPC</th><th>repeat with the same key?</th><th>what it means</th></tr>{rows}</table></html>"
    ).encode()
