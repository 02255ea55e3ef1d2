"""The OpenAPI document: what FastAPI finds in the routes, with the bodies that they read by themselves and an example
of every answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from close_api.close_body import CloseBody
from close_api.rest.closes import BatchBody, CancelBody
from close_api.rest.documented import HEADERS, SERVICE, TAGS, error_examples, named
from close_api.rest.examples import ANSWERS
from close_api.rest.operator_examples import OPERATOR_ANSWERS
from close_api.rest.operator_models import BODIES
from close_api.rest.overview_examples import OVERVIEW_ANSWERS
from close_api.rest.problems import ProblemAnswer, SeedErrorAnswer

_TEMPLATE: Final = "#/components/schemas/{model}"
EXPLAINED: Final[Mapping[str, str]] = {
    "AssetType": "What is traded: it decides lots, price increments, hours and time in force.",
    "Code": "What went wrong; /docs/errors explains each.",
    "OrderType": "FIX OrdType (40), as far as closes use it.",
    "PositionStatus": """What may be asked of a position now.

- `open`: it can be closed.
- `closing`: a close of it is under way.
- `closed`: nothing is left of it.
- `close_retryable`: the last attempt of its close ended without all being filled; another one follows by itself.
- `close_failed`: its close failed; a new one may be sent.""",
    "RequestStatus": """How far a close request is. `completed` and `failed` are its ends, though a late fill may still
turn `failed` to `completed`.

- `pending`: accepted; no order was sent yet.
- `submitted`: an order was sent, or is about to be.
- `retryable`: the last order ended unfilled; another attempt follows by itself.
- `completed`: the target is filled.
- `failed`: given up, cancelled or refused; `reason` says why.""",
    "Side": "FIX Side (54). A sell makes a long position smaller, a buy a short one.",
    "TimeInForce": "FIX TimeInForce (59), as far as closes use it.",
}
"""Schemas whose classes say it for their own readers."""
_EVENTS: Final = {
    "type": ["string", "object"],
    "description": "Events of the name `close_request`: `id` resumes behind it, and `data` is a CloseAnswer.",
    "properties": {"id": {"type": "string"}, "event": {"const": "close_request"}, "data": {"type": "string"}},
}
"""As text, or event by event as readers of server-sent events have them: OpenAPI 3.1 knows no more of them."""
_READ_BY_ROUTES: Final = (CloseBody, BatchBody, CancelBody, *BODIES, ProblemAnswer, SeedErrorAnswer)


_ANSWERS: Final = {**ANSWERS, **OPERATOR_ANSWERS, **OVERVIEW_ANSWERS}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document; the same at every call."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, models = models_json_schema([(model, "validation") for model in _READ_BY_ROUTES], ref_template=_TEMPLATE)
    components = document.setdefault("components", {})
    components["schemas"] = _plain(components.get("schemas", {}) | models["$defs"])
    components["examples"] = error_examples()
    components["headers"] = {name: dict(header) for name, header in HEADERS.items()}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    document["security"] = [{"token": []}]
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    for operation in operations(document):
        if SERVICE in operation["tags"]:
            operation["security"] = []
        for status, examples in _ANSWERS.get(operation["operationId"], {}).items():
            for kind, content in operation["responses"][status]["content"].items():
                if kind == "text/event-stream":
                    content["schema"] = dict(_EVENTS)
                content["examples"] = named(examples)
                content["schema"].pop("title", None)
    return document


def operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each of the document's calls."""
    for methods in document["paths"].values():
        yield from methods.values()


def _plain(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """By name, without titles that only repeat it."""
    plain = {}
    for name, schema in sorted(schemas.items()):
        plain[name] = {member: value for member, value in schema.items() if member != "title"}
        plain[name] |= {"description": EXPLAINED[name]} if name in EXPLAINED else {}
        if "properties" in schema:
            required = schema.get("required", ())
            plain[name]["properties"] = {
                field: _field(of, optional=field not in required) for field, of in schema["properties"].items()
            }
    return plain


def _field(schema: Mapping[str, Any], *, optional: bool) -> dict[str, Any]:
    """What may be left out is left out here and never null, neither in a body nor in an answer."""
    kept: dict[str, Any] = {member: value for member, value in schema.items() if member != "title"}
    if not optional:
        return kept
    if kept.get("default", ...) is None:
        del kept["default"]
    options: list[dict[str, Any]] = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        del kept["anyOf"]
        return kept | options[0]
    return kept | {"anyOf": options} if options else kept
