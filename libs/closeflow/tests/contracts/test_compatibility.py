"""Each kind of incompatible change to a schema is found; jsoncompat, which knows nothing of ours, is asked too."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsoncompat
import pytest

from closeflow.contracts.schema_files import breaking_changes, schema_files

RELEASED = Path(__file__).parents[4] / "schemas" / "released"
NAMES = sorted(schema_files())
Schema = dict[str, Any]
Change = Callable[[Schema], object]


def released(name: str) -> Schema:
    found: Schema = json.loads((RELEASED / name).read_text())
    return found


def compatible(before: Schema, after: Schema) -> bool:
    """By jsoncompat, for writers and readers; it cannot resolve a URN, so the names of the schemas are left out."""
    old, new = (
        json.dumps({key: value for key, value in one.items() if key[0] != "$" or key == "$defs"})
        for one in (before, after)
    )
    return bool(jsoncompat.check_compat(old, new, "both"))


def as_before(before: Schema, after: Schema) -> Schema:
    """The later schema without what may be added: optional fields, which no writer wrote before, and enum values, which
    readers put aside. No checker of schemas can know either of our writers and readers."""
    trimmed = copy.deepcopy(after)
    for name in trimmed["properties"].keys() - before["properties"].keys() - set(after["required"]):
        del trimmed["properties"][name]
    for name, node in trimmed.get("$defs", {}).items():
        if "enum" in node and name in before["$defs"]:
            node["enum"] = before["$defs"][name]["enum"]
    return trimmed


@pytest.mark.parametrize("name", NAMES)
def test_todays_schemas_break_nothing_by_either_opinion(name: str) -> None:
    before, after = released(name), json.loads(schema_files()[name])
    assert breaking_changes(before, after) == []
    assert compatible(before, as_before(before, after))


def _fields(schema: Schema) -> Schema:
    found: Schema = schema["properties"]
    return found


def _or_null(node: Schema) -> Schema:
    return {"anyOf": [node, {"type": "null"}]}


PLANTED: dict[str, tuple[str, Change, str, bool]] = {
    "a field is removed": (
        "submit-order",
        lambda s: _fields(s).pop("deadline"),
        "deadline was removed",
        True,
    ),
    "a required field is removed": (
        "submit-order",
        lambda s: (_fields(s).pop("symbol"), s["required"].remove("symbol")),
        "symbol was removed",
        True,
    ),
    "a field is renamed": (
        "position-event",
        lambda s: _fields(s).update(qty=_fields(s).pop("quantity")),
        "quantity was removed",
        True,
    ),
    "an optional field becomes required": (
        "submit-order",
        lambda s: s["required"].append("limit_price"),
        "limit_price became required",
        True,
    ),
    "a new field is required": (
        "position-event",
        lambda s: (_fields(s).update(desk={"type": "string"}), s["required"].append("desk")),
        "desk became required",
        True,
    ),
    "a required field becomes optional": (
        "execution-event",
        lambda s: s["required"].remove("price"),
        "price became optional",
        True,
    ),
    "a type changes": (
        "execution-event",
        lambda s: _fields(s)["quantity"].update(type="number"),
        "quantity has other rules than before",
        True,
    ),
    "a pattern is tightened": (
        "execution-event",
        lambda s: _fields(s)["currency"].update(pattern="^[A-Z]{3}$"),
        "currency has other rules than before",
        False,
    ),
    "a pattern is loosened": (
        "execution-event",
        lambda s: _fields(s)["currency"].update(pattern="^[a-z]{3,5}$"),
        "currency has other rules than before",
        False,
    ),
    "a limit is tightened": (
        "submit-order",
        lambda s: _fields(s)["attempt"].update(maximum=9),
        "attempt has other rules than before",
        True,
    ),
    "a limit is loosened": (
        "submit-order",
        lambda s: _fields(s)["attempt"].update(minimum=0),
        "attempt has other rules than before",
        True,
    ),
    "a length is loosened": (
        "submit-order",
        lambda s: _fields(s)["account_id"].update(maxLength=500),
        "account_id has other rules than before",
        True,
    ),
    "a format is dropped": (
        "position-event",
        lambda s: _fields(s)["event_id"].pop("format"),
        "event_id has other rules than before",
        False,
    ),
    "null is allowed": (
        "position-event",
        lambda s: _fields(s).update(quantity=_or_null(_fields(s)["quantity"])),
        "quantity has other rules than before",
        True,
    ),
    "null is no longer allowed": (
        "position-event",
        lambda s: _fields(s).update(side={"$ref": "#/$defs/Side"}),
        "side has other rules than before",
        True,
    ),
    "an enum value is removed": (
        "submit-order",
        lambda s: s["$defs"]["AssetType"]["enum"].remove("crypto"),
        "asset_type lost the value crypto",
        True,
    ),
    "an enum value is renamed": (
        "execution-event",
        lambda s: s["$defs"]["Side"].update(enum=["buy", "sold"]),
        "side lost the value sell",
        True,
    ),
    "an enum becomes free text": (
        "execution-event",
        lambda s: s["$defs"]["Side"].pop("enum"),
        "side lost the value buy",
        True,
    ),
    "a default changes": (
        "position-event",
        lambda s: _fields(s)["exposure_unproven"].update(default=True),
        "exposure_unproven has other rules than before",
        False,
    ),
    "unknown fields are forbidden": (
        "position-event",
        lambda s: s.update(additionalProperties=False),
        "the whole has another additionalProperties than before",
        True,
    ),
    "the whole becomes a list": (
        "position-event",
        lambda s: s.update(type="array"),
        "the whole has another type than before",
        True,
    ),
    "the version changes in place": (
        "position-event",
        lambda s: s.update({"$id": "urn:closeflow:position-event.v2"}),
        "the whole has another $id than before",
        False,
    ),
}
"""By what it is: which schema, the change, what our rules say of it, and whether jsoncompat sees it too; patterns,
formats and defaults it does not look at."""


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_incompatible_change_is_found(planted: str) -> None:
    name, change, said, seen_by_both = PLANTED[planted]
    before = released(f"{name}.v1.json")
    after = copy.deepcopy(before)
    change(after)
    assert said in breaking_changes(before, after)
    assert compatible(before, after) is not seen_by_both


@pytest.mark.parametrize("name", NAMES)
def test_what_may_change_is_let_through_by_both(name: str) -> None:
    before = released(name)
    after = copy.deepcopy(before)
    after["properties"]["a_field_of_tomorrow"] = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    after["properties"]["event_id"]["description"] = "Only for people."
    for node in after["$defs"].values():
        node["enum"] = [*node["enum"], "of_tomorrow"]
    assert breaking_changes(before, after) == []
    assert compatible(before, as_before(before, after))
