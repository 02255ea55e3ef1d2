"""Values that a schema of ours allows, drawn by Hypothesis, and the formats that are checked.

It knows the keywords that the schemas use, and no others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from hypothesis import strategies as st
from jsonschema import FormatChecker

Schema = Mapping[str, Any]

_TEXT: Final = frozenset({"type", "pattern", "format", "minLength", "maxLength", "title", "description", "default"})
_WHOLE: Final = frozenset({"type", "minimum", "maximum", "title", "description", "default"})
_TIMES: Final = st.datetimes().filter(lambda one: one.year >= 1970)

CHECKER: Final = FormatChecker()
_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@CHECKER.checks("date-time", ValueError)
def _is_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(_RFC_3339.fullmatch(value) and datetime.fromisoformat(value))


def values(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of the schema: what is required, and any of the rest."""
    required = set(schema["required"])
    fields = {name: _value(node, schema) for name, node in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: made for name, made in fields.items() if name in required},
        optional={name: made for name, made in fields.items() if name not in required},
    )


def _value(node: Schema, schema: Schema) -> st.SearchStrategy[Any]:
    if "$ref" in node:
        return _value(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in node:
        return st.one_of([_value(one, schema) for one in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            assert node.keys() <= _WHOLE, node
            return st.integers(node.get("minimum"), node.get("maximum"))
        case "string":
            return _text(node)
        case kind:
            raise AssertionError(f"no values of {kind} are made")


def _text(node: Schema) -> st.SearchStrategy[str]:
    assert node.keys() <= _TEXT, node
    if node.get("format") == "date-time":
        return _TIMES.map(lambda one: one.isoformat() + "Z")
    if node.get("format") == "uuid":
        return st.uuids().map(str)
    low, high = node.get("minLength", 0), node.get("maxLength", 200)
    if "pattern" not in node:
        return st.text(st.characters(codec="utf-8"), min_size=low, max_size=high)
    pattern = node["pattern"].removeprefix("^").removesuffix("$")
    return st.from_regex(pattern, fullmatch=True).filter(lambda one: low <= len(one) <= high)
