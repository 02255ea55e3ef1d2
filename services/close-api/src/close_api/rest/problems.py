"""How an error is written: RFC 9457 under /v1, the seed's own form on the seed's route."""

from __future__ import annotations

from html import escape
from typing import Final
from uuid import UUID

import orjson
from fastapi import Response
from pydantic import BaseModel, Field
from starlette.requests import Request

from close_api.errors import STATUSES, Code, Problem, Status
from close_api.tracing import trace_of

PROBLEM_JSON: Final = "application/problem+json"
ERROR_PAGE: Final = "/docs/errors"
_SEED: Final = "/api/"
_TITLES: Final = {code: code.value.replace("_", " ").capitalize() for code in Code}


class FieldProblem(BaseModel):
    """One value that cannot be used, by the name that the caller gave it."""

    field: str
    message: str


class ProblemMembers(BaseModel):
    """What some codes tell beside the message."""

    fields: list[FieldProblem] | None = Field(None, description="invalid_fields: each value that cannot be used.")
    active_close_request_id: UUID | None = Field(None, description="position_already_closing: the other close.")
    should_retry: bool | None = Field(None, description="Of one close of a batch: as the header Should-Retry.")
    retry_after_s: int | None = Field(None, description="Of one close of a batch: as the header Retry-After.")
    reason: str | None = Field(
        None, description="malformed_body, malformed_request, unauthenticated: what is wrong with it."
    )
    reasons: list[str] | None = Field(
        None, description="close_request_finished, operation_refused: what stands in the way."
    )
    scope: str | None = Field(None, description="forbidden: the scope that the token lacks.")
    quantity: str | None = Field(None, description="expected_quantity_mismatch: the position's quantity now.")
    version: int | None = Field(None, description="expected_quantity_mismatch: the position's version now.")


class ProblemAnswer(ProblemMembers):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Where the code is explained, relative to this service.")
    title: str
    status: int
    detail: str = Field(description="What is wrong and how to mend it.")
    code: Code
    trace_id: str


class SeedDetail(ProblemMembers):
    """The code for programs, the message for people."""

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


def seed_body(problem: Problem) -> dict[str, object]:
    """The members of an error on the seed's route."""
    message = STATUSES[problem.code].message
    if problem.code is Code.ZERO_QUANTITY:
        return {"detail": message}
    return {"detail": {"error": problem.code, "message": message, **problem.extra}}


def item_problem(problem: Problem, trace_id: str) -> dict[str, object]:
    """The members of the problem of one close of a batch, with what the headers say of one by itself."""
    later = {} if problem.retry_after_s is None else {"retry_after_s": problem.retry_after_s}
    retry = {"should_retry": STATUSES[problem.code].should_retry, **later}
    return {**problem_members(problem, trace_id), **retry}


def problem_response(request: Request, problem: Problem) -> Response:
    """The answer to a call that failed, in the form of its route."""
    status = STATUSES[problem.code]
    headers = dict(problem.headers)
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(problem.retry_after_s)
    headers["should-retry"] = "true" if status.should_retry else "false"
    if request.url.path.startswith(_SEED):
        return Response(orjson.dumps(seed_body(problem)), status.http, headers, "application/json")
    body = orjson.dumps(problem_members(problem, trace_of(request).trace_id))
    return Response(body, status.http, headers, PROBLEM_JSON)


def error_table() -> str:
    """Every code with its statuses and what to do, as an HTML table with the codes as anchors."""
    head = "".join(f"<th>{one}</th>" for one in ("code", "HTTP", "gRPC", "repeat with the same key?", "what it means"))
    rows = "\n".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status.http}</td><td>{status.grpc}</td>'
        f"<td>{_repeat(status)}</td><td>{escape(status.message)}</td></tr>"
        for code, status in STATUSES.items()
    )
    return f'<table class="errors">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>'


def error_page() -> bytes:
    """The table as a page; `type` of a problem points into it."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>close-api: errors</title>'
        "<style>body{font:16px/1.5 sans-serif;margin:2rem}td,th{padding:.3rem .8rem;text-align:left;vertical-align:top}"
        f"tr:target{{background:#ffd}}</style><h1>Errors of close-api</h1>{error_table()}</html>"
    ).encode()


def _repeat(status: Status) -> str:
    if not status.should_retry:
        return "no"
    return "yes" if status.retry_after_s is None else f"yes, after&nbsp;{status.retry_after_s}&nbsp;s"
