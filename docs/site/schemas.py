"""JSON Schema for people: the type of a value with its bounds, and the fields of an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from docs.site.markup import inline, prose, table

Schema = Mapping[str, Any]

_LARGE: Final = {10**15: "10<sup>15</sup>", -(10**15): "-10<sup>15</sup>", 2**63 - 1: "2<sup>63</sup> - 1"}
_LONG_PATTERN: Final = 40
"""One that is longer is said in words better."""


def type_of(schema: Schema) -> str:
    """The type with its bounds as HTML; what has a name links to it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    if "const" in schema:
        return _value(schema["const"])
    if "enum" in schema:
        return " | ".join(_value(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return " ".join(["list of", type_of(schema["items"]), *_counts(schema, "Items")])
    type_ = schema.get("type", "anything")
    name = schema.get("format") or (type_ if isinstance(type_, str) else " or ".join(type_))
    return " ".join([name, *_counts(schema, "Length"), " and ".join(_bounds(schema))]).strip()


def fields_of(schema: Schema) -> str:
    """The fields of an object as a table: those that are required first."""
    required = schema.get("required", ())
    fields = sorted(schema.get("properties", {}).items(), key=lambda one: one[0] not in required)
    rows = (
        (
            f"<code>{name}</code>{'' if name in required else ' <span class=muted>optional</span>'}",
            f'<span class="bounds">{type_of(of)}</span>{_default(of)}',
            inline(of.get("description", "")),
        )
        for name, of in fields
    )
    return table(("field", "type", "what"), rows)


def described(schemas: Mapping[str, Schema]) -> Iterator[str]:
    """Each schema that has a name, under its name."""
    for name, schema in schemas.items():
        shown = fields_of(schema) if schema.get("properties") else f"<p>{type_of(schema)}</p>"
        yield f'<h3 id="{name}">{name}</h3>\n{prose(schema.get("description", ""))}{shown}'


def _default(schema: Schema) -> str:
    return f'<br><span class="muted">default {_value(schema["default"])}</span>' if "default" in schema else ""


def _bounds(schema: Schema) -> Iterator[str]:
    for member, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "&lt;"), ("maximum", "≤")):
        if member in schema:
            yield f"{sign}&nbsp;{_LARGE.get(schema[member], schema[member])}"
    if len(schema.get("pattern", "")) in range(1, _LONG_PATTERN):
        yield f"like <code>{escape(schema['pattern'])}</code>"


def _counts(schema: Schema, of: str) -> Iterator[str]:
    low, high = schema.get(f"min{of}"), schema.get(f"max{of}")
    if low is not None or high is not None:
        unit = "characters" if of == "Length" else ""
        yield f"({f'{low or 0} to {high}' if high is not None else f'at least {low}'} {unit}".rstrip() + ")"


def _value(value: object) -> str:
    return f"<code>{escape(str(value).lower() if isinstance(value, bool) else str(value))}</code>"
