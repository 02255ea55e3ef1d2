"""The OpenAPI document is valid, current and whole, and each of its examples is what its schema says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from close_api.errors import STATUSES, Code
from close_api.rest.openapi_file import main, openapi_text

from .documented import DOCUMENT, Place, misfits, operations, resolved

FILE: Final = Path(__file__).parents[2] / "schemas" / "openapi.json"
UNREACHABLE: Final = {Code.METHOD_NOT_ALLOWED}
"""An operation is a method that its address has."""


def examples() -> Iterator[tuple[Place, object]]:
    """Each example with the place of the schema that it is one of."""
    for place, operation in operations():
        for status, answer in operation["responses"].items():
            yield from _of_content((*place, "responses", status), answer)
        if "requestBody" in operation:
            yield from _of_content((*place, "requestBody"), operation["requestBody"])
        for index, parameter in enumerate(operation.get("parameters", ())):
            if "example" in parameter:
                yield (*place, "parameters", str(index), "schema"), parameter["example"]
    for name, header in DOCUMENT["components"]["headers"].items():
        yield ("components", "headers", name, "schema"), header["example"]


def _of_content(place: Place, described: dict[str, Any]) -> Iterator[tuple[Place, object]]:
    for media, content in described["content"].items():
        for example in content.get("examples", {}).values():
            yield (*place, "content", media, "schema"), resolved(example)["value"]


def test_the_file_is_current() -> None:
    assert FILE.read_text() == openapi_text(), "run: make openapi"


def test_the_command_writes_the_file_that_it_is_given(tmp_path: Path) -> None:
    assert main([str(tmp_path / "openapi.json")]) == 0
    assert (tmp_path / "openapi.json").read_text() == openapi_text()
    assert main([]) == 2


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert [str(one) for one in OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT)] == []
    broken = json.loads(openapi_text())
    broken["paths"]["/healthz"]["get"]["responses"]["200"].pop("description")
    assert [str(one) for one in OPENAPI_31_VALIDATOR.iter_errors(broken)] != []


def test_nothing_is_left_of_what_fastapi_answers_by_itself() -> None:
    assert "HTTPValidationError" not in openapi_text()
    assert "ValidationError" not in DOCUMENT["components"]["schemas"]


def test_every_example_is_what_its_schema_says() -> None:
    found = list(examples())
    assert len(found) > 150
    assert [(place, wrong) for place, value in found if (wrong := misfits(value, place))] == []


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"quantity": 0}, "CloseBody"),
        ({"quantity": None}, "CloseBody"),
        ({"qty": 1}, "CloseBody"),
        ({"closes": []}, "BatchBody"),
        ({"closes": [{"position_id": 1, "idempotency_key": None}]}, "BatchBody"),
        ({"reason": ""}, "CancelBody"),
        ({"code": "no_such_code"}, "ProblemAnswer"),
    ],
)
def test_a_schema_refuses_what_the_service_refuses(value: object, place: str) -> None:
    assert misfits(value, ("components", "schemas", place)) != []


def test_every_operation_says_what_a_reader_needs() -> None:
    found = [operation for _, operation in operations()]
    assert max(Counter(one["operationId"] for one in found).values()) == 1
    tags = {one["name"] for one in DOCUMENT["tags"]}
    for one in found:
        assert one["summary"]
        assert {*one["tags"]} <= tags
        assert (one.get("security") == []) == (one["tags"] == ["Service"])
        for status, answer in one["responses"].items():
            assert answer["description"], (one["operationId"], status)
            assert "Trace-Id" in answer["headers"]
            if one["tags"] != ["Service"]:
                assert all(content["examples"] for content in answer["content"].values()), (one["operationId"], status)


def test_every_error_stands_at_its_status_and_every_code_is_there() -> None:
    told: set[Code] = set()
    for place, operation in operations():
        for status, answer in operation["responses"].items():
            if int(status) < 400 or (place[1], status) == ("/readyz", "503"):
                continue
            codes = {Code(code) for content in answer["content"].values() for code in content["examples"]}
            assert {STATUSES[code].http for code in codes} == {int(status)}
            assert all(f"`{code}`" in answer["description"] for code in codes)
            told |= codes
    assert told == {*Code} - UNREACHABLE


def test_every_field_of_a_body_is_explained() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    unexplained = [
        f"{name}.{field}"
        for name in ("CloseBody", "CancelBody")
        for field, schema in schemas[name]["properties"].items()
        if not schema.get("description")
    ]
    assert unexplained == []
