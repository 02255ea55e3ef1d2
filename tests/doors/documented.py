"""The OpenAPI document as its readers use it: what it says an answer looks like, and whether one does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from close_api.errors import Code
from close_api.rest.openapi_file import openapi_text

DOCUMENT: Final[dict[str, Any]] = json.loads(openapi_text())
_URI: Final = "urn:close-api"
_REGISTRY: Final[Registry[Any]] = Registry().with_resource(_URI, DRAFT202012.create_resource(DOCUMENT))

Place = tuple[str, ...]


def operations() -> Iterator[tuple[Place, dict[str, Any]]]:
    """Where each call is described, and how."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield ("paths", path, method), operation


def operation_at(method: str, path: str) -> tuple[Place, dict[str, Any]]:
    """The call whose address this is."""
    wanted = path.split("/")
    for place, operation in operations():
        parts = place[1].split("/")
        fits = len(parts) == len(wanted) and all(
            part == given or part.startswith("{") for part, given in zip(parts, wanted, strict=True)
        )
        if place[2] == method.lower() and fits:
            return place, operation
    raise LookupError(f"{method} {path} is not described")


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node, or what it refers to."""
    if "$ref" not in node:
        return node
    found: Any = DOCUMENT
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return resolved(found)


def misfits(value: object, place: Place) -> list[str]:
    """What of a value is not as the schema at this place has it."""
    pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in place)
    schema = {"$ref": f"{_URI}#/{pointer}"}
    validator = Draft202012Validator(schema, registry=_REGISTRY, format_checker=FormatChecker())
    return [f"{'/'.join(map(str, one.absolute_path))}: {one.message}" for one in validator.iter_errors(value)]


def undocumented(answer: httpx.Response) -> list[str]:
    """What of an answer the document does not say."""
    request = answer.request
    place, operation = operation_at(request.method, request.url.path)
    described = operation["responses"].get(str(answer.status_code))
    if described is None:
        return [f"{answer.status_code} is not described"]
    place = (*place, "responses", str(answer.status_code))
    headers = {name: resolved(one) for name, one in described["headers"].items()}
    missing = [name for name, one in headers.items() if one.get("required") and name not in answer.headers]
    found = [f"{name} is missing" for name in missing]
    standard = {"content-type", "content-length", "cache-control", "connection", "allow"}
    found += [
        f"{name} is not described" for name in answer.headers if name not in standard | {*map(str.lower, headers)}
    ]
    media = answer.headers["content-type"].partition(";")[0]
    if media not in described["content"]:
        return [*found, f"{media} is not described"]
    body: Any = answer.json() if media.endswith("json") else answer.text
    found += misfits(body, (*place, "content", media, "schema"))
    code = _code_of(body) if answer.status_code >= 400 else None
    if code is not None and code not in described["content"][media]["examples"]:
        found.append(f"{code} has no example")
    return found


def _code_of(body: Mapping[str, Any]) -> str | None:
    """The code of an error, in either form; None of what is none, such as the reasons for which nothing is accepted."""
    detail = body.get("detail")
    code: str | None = body.get("code")
    if code is not None or detail is None:
        return code
    return str(detail["error"]) if isinstance(detail, dict) else Code.ZERO_QUANTITY
