"""The OpenAPI document: what FastAPI finds in the routes, with the bodies they read by themselves and an example of
every answer."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from close_api.close_body import CloseBody
from close_api.errors import STATUSES, Code, Problem, Status
from close_api.rest.closes import BatchBody, CancelBody
from close_api.rest.problems import ProblemAnswer, problem_members

_TEMPLATE: Final = "#/components/schemas/{model}"
_TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
_NOT_BEHIND: Final[frozenset[Code]] = frozenset({Code.METHOD_NOT_ALLOWED, Code.INTERNAL_ERROR})
_EXTRA: Final[dict[Code, dict[str, object]]] = {
    Code.INVALID_FIELDS: {"fields": [{"field": "quantity", "message": "must not exceed the position: 10"}]},
    Code.POSITION_ALREADY_CLOSING: {"active_close_request_id": "01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20"},
    Code.MALFORMED_BODY: {"reason": "not an object"},
    Code.FORBIDDEN: {"scope": "close:write"},
    Code.EXPECTED_QUANTITY_MISMATCH: {"quantity": "10", "version": 4},
    Code.CLOSE_REQUEST_FINISHED: {"reasons": ["it is completed"]},
    Code.OPERATION_REFUSED: {"reasons": ["an order of it may still fill 3"]},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document; the same at every call."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, models = models_json_schema(
        [(model, "validation") for model in (CloseBody, BatchBody, CancelBody, ProblemAnswer)], ref_template=_TEMPLATE
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= {name: schema for name, schema in models["$defs"].items() if name not in schemas}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    document["security"] = [{"token": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return document


def _complete(path: str, operation: dict[str, Any]) -> None:
    """FastAPI describes an answer of its own for input it does not check here; every error gets its examples."""
    for status, answer in operation["responses"].items():
        codes = {
            code: known for code, known in STATUSES.items() if str(known.http) == status and code not in _NOT_BEHIND
        }
        if not codes:
            continue
        answer["description"] = "; ".join(f"`{code}`: {known.message}" for code, known in codes.items())
        for content in answer.get("content", {}).values():
            content["examples"] = {code.value: {"value": _example(path, code, known)} for code, known in codes.items()}


def _example(path: str, code: Code, status: Status) -> dict[str, object]:
    if not path.startswith("/api/"):
        return problem_members(Problem(code, extra=_EXTRA.get(code)), _TRACE)
    if code is Code.ZERO_QUANTITY:
        return {"detail": status.message}
    return {"detail": {"error": code.value, "message": status.message, **_EXTRA.get(code, {})}}
