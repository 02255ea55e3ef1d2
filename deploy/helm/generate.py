"""Writes what the charts have twice: the shared part of each values.yaml, its schema, and the table of its README.

    python deploy/helm/generate.py [--check]

A value's comment is its description. A line `# @schema {...}` in it has what JSON Schema knows besides the type. With
--check nothing is written, and the exit code is 1 where a file is not what would be.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, Pattern, load_access

HELM: Final = Path(__file__).resolve().parent
REPOSITORY: Final = HELM.parents[1]
SHARED: Final = HELM / "closeflow-lib" / "values"
SERVICES: Final = (
    "close-api",
    "order-submitter",
    "broker-gateway",
    "fill-processor",
    "reconciler",
    "close-board",
    "broker-simulator",
)
CHARTS: Final = (*SERVICES, "closeflow-platform", "closeflow")
MARK: Final = "# --- of every service; written by deploy/helm/generate.py from closeflow-lib/values ---"
MARK_GLOBAL: Final = "# --- of every chart; written by deploy/helm/generate.py from closeflow-lib/values ---"
_BY_STRIMZI: Final = ("config.storage.", "offset.storage.", "status.storage.", "plugin.", "scheduled.")
"""What Strimzi's KafkaConnect has elsewhere, or what is for one worker in development."""
_PATTERNS: Final = {Pattern.LITERAL: "literal", Pattern.PREFIXED: "prefix"}
_SCHEMA: Final = "@schema "
_COMMENT: Final = re.compile(r"^\s*# ?(.*)$")


@dataclass(frozen=True, slots=True)
class Value:
    """One value: where it is, what it is by default, what is said of it."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: dict[str, Any]


def values_text(chart: str) -> str:
    """What values.yaml of a chart has to be: its own part, then the shared ones."""
    own, mark, _ = (HELM / chart / "values.yaml").read_text().partition(MARK if chart in SERVICES else MARK_GLOBAL)
    if not mark:
        raise SystemExit(f"{chart}/values.yaml has no line {MARK!r}; put it after the chart's own values")
    parts = ["service.yaml", "global.yaml"] if chart in SERVICES else ["global.yaml"]
    return own + mark + "\n" + "\n".join((SHARED / part).read_text() for part in parts)


def read_values(text: str) -> list[Value]:
    """Every value of a values.yaml, inner ones after the mapping that they are in."""
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_walk(root, (), lines))


def _walk(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        here = (*path, key.value)
        description, schema = _said(lines, key.start_mark.line)
        default = _plain(value)
        yield Value(here, default, description, schema)
        if isinstance(value, yaml.MappingNode) and value.value and not schema and not value.flow_style:
            yield from _walk(value, here, lines)
        elif isinstance(value, yaml.MappingNode) and value.value and not schema:
            yield from _walk(value, here, [])


def _said(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """The comment directly above a key."""
    words: list[str] = []
    schema: dict[str, Any] = {}
    while line > 0 and len(lines) > line and (found := _COMMENT.match(lines[line - 1])):
        line -= 1
        if found[1].startswith(_SCHEMA):
            schema = json.loads(found[1].removeprefix(_SCHEMA))
        elif found[1].startswith("---"):
            break
        else:
            words.insert(0, found[1])
    return " ".join(words), schema


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def schema_of(values: list[Value], title: str, dependencies: list[str]) -> dict[str, Any]:
    """A strict schema: no value that values.yaml does not have."""
    inner: dict[tuple[str, ...], dict[str, Any]] = {(): {"type": "object", "additionalProperties": False}}
    for value in values:
        made: dict[str, Any] = {"type": _type(value.default), **value.schema}
        if value.description:
            made["description"] = value.description
        if made["type"] == "object" and not value.schema:
            made["additionalProperties"] = False
        inner[value.path[:-1]].setdefault("properties", {})[value.path[-1]] = made
        inner[value.path] = made
    root = inner[()]
    for name in dependencies:
        # What is below it is checked by that chart's own schema.
        root.setdefault("properties", {}).setdefault(name, {"type": "object"})
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of {title}", **root}


def _type(default: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    for kind, name in kinds.items():
        if isinstance(default, kind):
            return name
    raise SystemExit(f"{default!r} has no type that a schema knows; give it a default that shows it")


def readme_of(chart: str, values: list[Value]) -> str:
    """README.md of a chart: its description and a table of its values."""
    facts = yaml.safe_load((HELM / chart / "Chart.yaml").read_text())
    needs = HELM / chart / "README.part"
    rows = [
        f"| `{'.'.join(value.path)}` | `{json.dumps(value.default, ensure_ascii=False)}` | {value.description} |"
        for value in values
        if _is_leaf(value, values)
    ]
    return (
        f"# {chart}\n\n{facts['description']} How it is installed is in [docs/helm.md](../../../docs/helm.md).\n"
        "(Written from Chart.yaml, README.part and values.yaml by `python deploy/helm/generate.py`.)\n\n"
        + (needs.read_text() + "\n" if needs.is_file() else "")
        + "## Values\n| value | default | what it is |\n|---|---|---|\n"
        + "\n".join(rows).replace("| |", "|  |")
        + "\n"
    )


def _is_leaf(value: Value, values: list[Value]) -> bool:
    return not any(other.path[: len(value.path)] == value.path and other is not value for other in values)


def files() -> Iterator[tuple[Path, str]]:
    """Every file that is written, and what it has to be."""
    for chart in CHARTS:
        text = values_text(chart)
        values = read_values(text)
        facts = yaml.safe_load((HELM / chart / "Chart.yaml").read_text())
        names = [one["name"] for one in facts.get("dependencies", [])]
        yield HELM / chart / "values.yaml", text
        schema = schema_of(values, chart, names)
        yield HELM / chart / "values.schema.json", json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        yield HELM / chart / "README.md", readme_of(chart, values)
    yield from platform_files()


def platform_files() -> Iterator[tuple[Path, str]]:
    """What closeflow-platform needs of the repository, because a chart reads nothing outside of itself."""
    specs = [yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "schemas/topics").glob("*.yaml"))]
    topics = [{name: spec[name] for name in ("topic", "partitions", "config")} for spec in specs]
    worker = {
        name: value
        for line in (REPOSITORY / "connect/worker.properties").read_text().splitlines()
        if "=" in line and not line.startswith("#")
        for name, _, value in [line.partition("=")]
        if not name.startswith(_BY_STRIMZI)
    }
    connector = json.loads((REPOSITORY / "connect/outbox-connector.json").read_text())
    for name in ("connector.class", "tasks.max"):
        del connector[name]
    folder = HELM / "closeflow-platform" / "files"
    made = {"topics": topics, "worker": worker, "outbox-connector": connector, "acls": _acls()}
    for file, content in made.items():
        yield folder / f"{file}.json", json.dumps(content, indent=1) + "\n"


def _acls() -> dict[str, list[dict[str, Any]]]:
    """By principal, in the words of Strimzi's KafkaUser: what `closectl topics apply --acls` gives."""
    access = load_access(REPOSITORY / "schemas/topics", REPOSITORY / PRINCIPALS_FILE)
    made: dict[str, list[dict[str, Any]]] = {principal: [] for principal in access.principals}
    rights = sorted((acl.principal, acl.resource, acl.pattern, acl.name) for acl in access.acls)
    for principal, resource, pattern, name in sorted(set(rights)):
        same = (principal, resource, pattern, name)
        operations = [
            one.operation for one in access.acls if (one.principal, one.resource, one.pattern, one.name) == same
        ]
        made[principal].append(
            {
                "resource": {"type": resource.lower(), "name": name, "patternType": _PATTERNS[pattern]},
                "operations": [operation.title().replace("_", "") for operation in sorted(operations)],
                "host": "*",
            }
        )
    return made


def main() -> int:
    """Write the files, or say which are not as they would be written."""
    parser = argparse.ArgumentParser(description="Write what the charts have twice.")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in files() if not path.is_file() or path.read_text() != text]
    for path, text in stale:
        sys.stdout.write(f"{path.relative_to(REPOSITORY)} {'is stale' if check else 'written'}\n")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
