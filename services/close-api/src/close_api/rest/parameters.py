"""Parameters of a query: how lists are asked for, read and described the same on every route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from close_api.errors import FieldError, field_problem

_PAGE_SIZE: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
LONGEST_TEXT: Final = 500


def read_texts(request: Request) -> Mapping[str, str]:
    """What is given, by name. Raises Problem `invalid_fields` for what is empty, too long or not printable."""
    given = dict(request.query_params)
    for name, value in given.items():
        if len(value) > LONGEST_TEXT or not value.isprintable():
            raise field_problem(FieldError(name, f"must be at most {LONGEST_TEXT} printable characters"))
        if not value and name != "page_token":
            raise field_problem(FieldError(name, "is empty; leave it out"))
    return given


def read_page(given: Mapping[str, str]) -> tuple[int, str]:
    """The size and the token of a page. Raises Problem `invalid_fields`."""
    size = given.get("page_size", "0")
    if not _PAGE_SIZE.fullmatch(size):
        raise field_problem(FieldError("page_size", "must be a whole number, at least 0"))
    return int(size), given.get("page_token", "")


def parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    """How the OpenAPI describes one that may be left out."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def text_parameter(name: str, description: str) -> dict[str, Any]:
    """How it describes one that `read_texts` takes."""
    return parameter(name, description, type="string", minLength=1, maxLength=LONGEST_TEXT)


PAGING: Final = [
    parameter(
        "page_size",
        "How many at most: 50 where it is absent or 0, never more than 500.",
        type="integer",
        minimum=0,
        maximum=999_999_999,
    ),
    parameter(
        "page_token", "As the page before gave it, with the same filters.", type="string", maxLength=LONGEST_TEXT
    ),
]
