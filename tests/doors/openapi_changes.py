"""What of a change to the OpenAPI document a caller of the released one would stumble over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

Document = Mapping[str, Any]
_FOR_PEOPLE: Final = frozenset({"description", "title", "summary", "example", "examples"})
_COMPARED_APART: Final = frozenset({"properties", "required", "enum", "items", "anyOf", "oneOf", "allOf"})


class Direction(Enum):
    """Who writes what a schema describes: the caller, or the service."""

    REQUEST = "request"
    ANSWER = "answer"


def breaking_changes(released: Document, current: Document) -> list[str]:
    """A line for each, nothing where a caller of the released document notices nothing.

    Calls, optional parameters, optional fields of a request, fields of an answer, statuses, headers and values of an
    enum may be added. What else differs is a break, loosening too: what the service takes more of, it has to go on
    taking, and what it answers more loosely, a caller may not read.
    """
    return sorted(set(_Changes(released, current).all()))


class _Changes:
    def __init__(self, released: Document, current: Document) -> None:
        self._released = released
        self._current = current

    def all(self) -> Iterator[str]:
        for path, methods in self._released["paths"].items():
            for method, before in methods.items():
                after = self._current["paths"].get(path, {}).get(method)
                name = f"{method.upper()} {path}"
                if after is None:
                    yield f"{name} was removed"
                    continue
                yield from self._operation(name, before, after)

    def _operation(self, name: str, before: Document, after: Document) -> Iterator[str]:
        for what in ("operationId", "security"):
            if before.get(what) != after.get(what):
                yield f"{name} has another {what} than before"
        yield from self._parameters(name, before, after)
        yield from self._body(name, before.get("requestBody"), after.get("requestBody"))
        for status, answer in before["responses"].items():
            if status not in after["responses"]:
                yield f"{name} no longer answers {status}"
                continue
            yield from self._answer(f"{name} {status}", answer, after["responses"][status])

    def _parameters(self, name: str, before: Document, after: Document) -> Iterator[str]:
        old, new = (
            {(one["in"], one["name"]): one for one in operation.get("parameters", ())} for operation in (before, after)
        )
        for key, parameter in old.items():
            place = f"{name} {key[0]} {key[1]}"
            if key not in new:
                yield f"{place} was removed"
            else:
                if new[key].get("required", False) and not parameter.get("required", False):
                    yield f"{place} became required"
                yield from self._schema(place, parameter["schema"], new[key]["schema"], Direction.REQUEST)
        for key in new.keys() - old.keys():
            if new[key].get("required", False):
                yield f"{name} {key[0]} {key[1]} is new and required"

    def _body(self, name: str, before: Document | None, after: Document | None) -> Iterator[str]:
        if before is None:
            if after is not None and after.get("required", False):
                yield f"{name} now needs a body"
            return
        if after is None:
            yield f"{name} no longer takes a body"
            return
        if after.get("required", False) and not before.get("required", False):
            yield f"{name} now needs a body"
        yield from self._content(f"{name} body", before["content"], after["content"], Direction.REQUEST)

    def _answer(self, place: str, before: Document, after: Document) -> Iterator[str]:
        for header in before.get("headers", {}).keys() - after.get("headers", {}).keys():
            yield f"{place} no longer has the header {header}"
        yield from self._content(place, before.get("content", {}), after.get("content", {}), Direction.ANSWER)

    def _content(self, place: str, before: Document, after: Document, direction: Direction) -> Iterator[str]:
        for media, described in before.items():
            if media not in after:
                yield f"{place} is no longer {media}"
            else:
                yield from self._schema(place, described["schema"], after[media]["schema"], direction)

    def _schema(
        self, place: str, before: Document, after: Document, direction: Direction, within: tuple[str, ...] = ()
    ) -> Iterator[str]:
        """`within` are the references that led here, so that a schema that contains itself ends."""
        if (reference := before.get("$ref", "")) in within:
            return
        within = (*within, reference) if reference else within
        old, new = _resolved(before, self._released), _resolved(after, self._current)
        yield from (
            f"{place} has another {keyword} than before"
            for keyword in (old.keys() | new.keys()) - _FOR_PEOPLE - _COMPARED_APART
            if old.get(keyword) != new.get(keyword)
        )
        if "enum" in old or "enum" in new:
            lost = [one for one in old.get("enum", ()) if one not in new.get("enum", ())]
            yield from (f"{place} lost the value {one}" for one in lost)
            if "enum" not in old:
                yield f"{place} has values to choose from, and was free"
        yield from self._fields(place, old, new, direction, within)
        for keyword in ("anyOf", "oneOf", "allOf"):
            ours, theirs = old.get(keyword, []), new.get(keyword, [])
            if len(ours) != len(theirs):
                yield f"{place} has other alternatives than before"
            for one, other in zip(ours, theirs, strict=False):
                yield from self._schema(place, one, other, direction, within)
        if "items" in old or "items" in new:
            yield from self._schema(f"{place}[]", old.get("items", {}), new.get("items", {}), direction, within)

    def _fields(
        self, place: str, old: Document, new: Document, direction: Direction, within: tuple[str, ...]
    ) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        yield from (f"{place}.{name} was removed" for name in before.keys() - after.keys())
        if direction is Direction.REQUEST:
            yield from (f"{place}.{name} is required, and was not" for name in needs - needed)
        else:
            yield from (f"{place}.{name} may be missing, and was always there" for name in needed - needs)
        for name in before.keys() & after.keys():
            yield from self._schema(f"{place}.{name}", before[name], after[name], direction, within)


def _resolved(node: Document, document: Document) -> Document:
    """The node with what it refers to, and what it says beside that."""
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return {**_resolved(found, document), **{name: value for name, value in node.items() if name != "$ref"}}
