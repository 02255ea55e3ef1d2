"""The JSON Schema files of the wire models, and what may change in them.

`python -m closeflow.contracts.schema_files write schemas` makes `schemas/json` and `schemas/asyncapi.yaml` again;
`… release schemas` does that and then freezes as `schemas/released`, which every later version must agree with: the
schemas, the readers that understand them, and the OpenAPI document and close.proto as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from closeflow.contracts.asyncapi import asyncapi_text
from closeflow.contracts.cloudevents import schema_name, schema_version
from closeflow.contracts.released_readers import freeze_readers
from closeflow.contracts.topics import TOPIC_MODELS
from closeflow.contracts.wire import WireModel

SOURCES: Final = Path(__file__).parents[2]
_NO_MEANING: Final = frozenset({"description", "title"})
_WHOLE: Final = frozenset({"properties", "required", "$defs", *_NO_MEANING})


def schema_files() -> dict[str, str]:
    """File name → content, for every model."""
    return {f"{schema_version(model)}.json": _text(model) for model in TOPIC_MODELS.values()}


def breaking_changes(released: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What a reader or a writer of the released schema would stumble over.

    Allowed are a new optional property and a new enum value (readers park values they do not know). Everything else is
    a break, loosening too: an older reader refuses what a newer writer may then say.
    """
    before, after = released["properties"], current["properties"]
    found = [
        f"the whole has another {name} than before"
        for name in sorted((released.keys() | current.keys()) - _WHOLE)
        if released.get(name) != current.get(name)
    ]
    found += [f"{name} was removed" for name in before if name not in after]
    found += [f"{name} became required" for name in current["required"] if name not in released["required"]]
    found += [f"{name} became optional" for name in released["required"] if name not in current["required"]]
    for name in before.keys() & after.keys():
        old, new = _meaning(before[name], released), _meaning(after[name], current)
        old_values, new_values = _enum_values(old), _enum_values(new)
        found += [f"{name} lost the value {value}" for value in sorted(old_values - new_values)]
        if _without_enum(old) != _without_enum(new):
            found.append(f"{name} has other rules than before")
    return sorted(found)


def _text(model: type[WireModel]) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": schema_name(model),
        **model.model_json_schema(mode="validation"),
    }
    return json.dumps(schema, indent=2) + "\n"


def _meaning(node: Any, schema: Mapping[str, Any]) -> Any:
    """A node with its references put in and everything that is only for people taken out."""
    if isinstance(node, list):
        return [_meaning(item, schema) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _meaning(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    return {name: _meaning(item, schema) for name, item in node.items() if name not in _NO_MEANING}


def _alternatives(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(option) for option in node.get("anyOf", [node])]


def _enum_values(node: Mapping[str, Any]) -> set[str]:
    return {value for option in _alternatives(node) for value in option.get("enum", ())}


def _without_enum(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{name: item for name, item in option.items() if name != "enum"} for option in _alternatives(node)]


def _freeze(schemas: Path) -> None:
    released = schemas / "released"
    freeze_readers(SOURCES, released / "readers")
    shutil.copyfile(schemas / "openapi.json", released / "openapi.json")
    shutil.copytree(schemas / "proto", released / "proto", ignore=_not_proto, dirs_exist_ok=True)


def _not_proto(folder: str, names: list[str]) -> list[str]:
    return [one for one in names if not (Path(folder) / one).is_dir() and not one.endswith(".proto")]


def main(arguments: list[str]) -> int:
    """Returns the exit code: 2 for arguments that are none of its own, before anything is written."""
    match arguments:
        case ["write" | "release" as verb, schemas]:
            for name, text in schema_files().items():
                (Path(schemas) / "json" / name).write_text(text)
                if verb == "release":
                    (Path(schemas) / "released" / name).write_text(text)
            (Path(schemas) / "asyncapi.yaml").write_text(asyncapi_text(Path(schemas)))
            if verb == "release":
                _freeze(Path(schemas))
            return 0
        case _:
            sys.stderr.write("usage: python -m closeflow.contracts.schema_files write|release SCHEMAS_DIRECTORY\n")
            return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
