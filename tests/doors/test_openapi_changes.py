"""The OpenAPI document breaks no caller of the released one, and each kind of change that would is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from close_api.rest.openapi_file import openapi_text

from .openapi_changes import breaking_changes

RELEASED: Final = Path(__file__).parents[2] / "schemas" / "released" / "openapi.json"
CLOSE: Final = "/v1/positions/{position_id}/close"
Document = dict[str, Any]


def released() -> Document:
    found: Document = json.loads(RELEASED.read_text())
    return found


def test_the_document_breaks_nothing_that_was_released() -> None:
    assert breaking_changes(released(), json.loads(openapi_text())) == []


def close(document: Document) -> Document:
    found: Document = document["paths"][CLOSE]["post"]
    return found


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def parameter(document: Document, name: str) -> Document:
    return next(one for one in close(document)["parameters"] if one["name"] == name)


BODY: Final = f"POST {CLOSE} body"
ACCEPTED: Final = f"POST {CLOSE} 201"
PLANTED: Final[dict[str, tuple[Callable[[Document], object], str]]] = {
    "a path is removed": (lambda d: d["paths"].pop(CLOSE), f"POST {CLOSE} was removed"),
    "a path is renamed": (
        lambda d: d["paths"].update({"/v2/close": d["paths"].pop(CLOSE)}),
        f"POST {CLOSE} was removed",
    ),
    "a method changes": (
        lambda d: d["paths"][CLOSE].update(put=d["paths"][CLOSE].pop("post")),
        f"POST {CLOSE} was removed",
    ),
    "a call gets another name": (
        lambda d: close(d).update(operationId="close"),
        f"POST {CLOSE} has another operationId than before",
    ),
    "a call needs no token": (lambda d: close(d).update(security=[]), f"POST {CLOSE} has another security than before"),
    "a header of the call is removed": (
        lambda d: close(d)["parameters"].remove(parameter(d, "If-Match")),
        f"POST {CLOSE} header If-Match was removed",
    ),
    "a header of the call becomes required": (
        lambda d: parameter(d, "If-Match").update(required=True),
        f"POST {CLOSE} header If-Match became required",
    ),
    "a new parameter is required": (
        lambda d: close(d)["parameters"].append({"in": "query", "name": "desk", "required": True, "schema": {}}),
        f"POST {CLOSE} query desk is new and required",
    ),
    "a parameter is narrowed": (
        lambda d: parameter(d, "position_id")["schema"].update(maximum=9),
        f"POST {CLOSE} path position_id has another maximum than before",
    ),
    "a body is needed": (lambda d: close(d)["requestBody"].update(required=True), f"POST {CLOSE} now needs a body"),
    "a body is of another kind": (
        lambda d: close(d)["requestBody"].update(content={"text/plain": {"schema": {}}}),
        f"{BODY} is no longer application/json",
    ),
    "a field of the request is removed": (
        lambda d: schema(d, "CloseBody")["properties"].pop("percentage"),
        f"{BODY}.percentage was removed",
    ),
    "a field of the request becomes required": (
        lambda d: schema(d, "CloseBody").update(required=["quantity"]),
        f"{BODY}.quantity is required, and was not",
    ),
    "a field of the request is narrowed": (
        lambda d: schema(d, "CloseBody")["properties"]["max_slippage_bps"].update(maximum=10),
        f"{BODY}.max_slippage_bps has another maximum than before",
    ),
    "a default of the request changes": (
        lambda d: schema(d, "CloseBody")["properties"]["order_type"].update(default="market"),
        f"{BODY}.order_type has another default than before",
    ),
    "a value of the request is removed": (
        lambda d: schema(d, "CloseBody")["properties"]["time_in_force"]["enum"].remove("ioc"),
        f"{BODY}.time_in_force lost the value ioc",
    ),
    "a field of the answer is removed": (
        lambda d: schema(d, "CloseAnswer")["properties"].pop("filled_qty"),
        f"{ACCEPTED}.filled_qty was removed",
    ),
    "a field of the answer may be missing": (
        lambda d: schema(d, "CloseAnswer")["required"].remove("symbol"),
        f"{ACCEPTED}.symbol may be missing, and was always there",
    ),
    "a field of the answer changes its type": (
        lambda d: schema(d, "CloseAnswer")["properties"]["position_id"].update(type="string"),
        f"{ACCEPTED}.position_id has another type than before",
    ),
    "a status is no longer answered": (
        lambda d: close(d)["responses"].pop("409"),
        f"POST {CLOSE} no longer answers 409",
    ),
    "a header of the answer is removed": (
        lambda d: close(d)["responses"]["201"]["headers"].pop("Location"),
        f"{ACCEPTED} no longer has the header Location",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_breaking_change_is_found(planted: str) -> None:
    change, said = PLANTED[planted]
    document = released()
    change(document)
    assert said in breaking_changes(released(), document)


def test_a_lost_error_code_is_found() -> None:
    document = released()
    codes = schema(document, "ProblemAnswer")["properties"]["code"]
    codes = schema(document, codes["$ref"].rpartition("/")[2]) if "$ref" in codes else codes
    codes["enum"].remove("position_closed")
    found = breaking_changes(released(), document)
    assert f"POST {CLOSE} 409.code lost the value position_closed" in found


def test_what_may_change_is_let_through() -> None:
    document = released()
    document["paths"]["/v1/new"] = {"get": copy.deepcopy(close(document))}
    close(document)["parameters"].append({"in": "query", "name": "desk", "required": False, "schema": {}})
    close(document)["responses"]["418"] = close(document)["responses"]["409"]
    close(document)["description"] = "In other words."
    schema(document, "CloseBody")["properties"]["desk"] = {"type": "string"}
    schema(document, "CloseBody")["properties"]["time_in_force"]["enum"].append("fok")
    schema(document, "CloseAnswer")["properties"]["desk"] = {"type": "string"}
    schema(document, "CloseAnswer")["required"].append("desk")
    assert breaking_changes(released(), document) == []
