"""What is in each Python image, as CycloneDX 1.6 JSON: `make sbom` writes var/sbom/<image>.cdx.json from the lock.

The same walk of the lock makes the image, so that this list is the image's; `make audit-images` holds it against what
is installed. Nothing but the standard library is needed.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from deploy.docker.requirements_of import LOCK, ROOT, Requirement, read_lock, required, with_shared

DIRECTORY: Final = ROOT / "var" / "sbom"
PYPROJECTS: Final = (*sorted((ROOT / "services").glob("*/pyproject.toml")), ROOT / "closectl" / "pyproject.toml")


def folders() -> dict[str, str]:
    """By image, the folder of its program."""
    return {one.parent.name: str(one.parent.relative_to(ROOT)) for one in PYPROJECTS}


def packages_of(folder: str) -> tuple[dict[str, str], list[Requirement]]:
    """Ours with their versions, and those of the lock."""
    ours = with_shared(folder)
    projects = [tomllib.loads((ROOT / one / "pyproject.toml").read_text())["project"] for one in ours]
    return {one["name"]: one["version"] for one in projects}, required(read_lock(LOCK.read_text()), ours)


def version_of(requirement: Requirement) -> str:
    """As it is pinned."""
    found = re.search(r"==([^ \\]+)", requirement.lines)
    assert found is not None, requirement.lines
    return found[1]


def document(image: str, folder: str) -> dict[str, Any]:
    """The whole document; the same for the same lock, so that a difference means something."""
    ours, locked = packages_of(folder)
    root = f"pkg:pypi/{image}@{ours[image]}"
    refs = {one.name: f"pkg:pypi/{one.name}@{version_of(one)}" for one in locked}
    components = [
        {
            "type": "library",
            "bom-ref": refs[one.name],
            "name": one.name,
            "version": version_of(one),
            "purl": refs[one.name],
            # Of every file that the lock takes for this version; one of them is installed.
            "properties": [
                {"name": "closeflow:locked-hash", "value": value}
                for value in re.findall(r"--hash=(sha256:[0-9a-f]{64})", one.lines)
            ],
        }
        for one in locked
    ]
    mine = [name for name in ours if name != image]
    components += [
        {"type": "library", "bom-ref": f"pkg:pypi/{name}@{ours[name]}", "name": name, "version": ours[name]}
        for name in mine
    ]
    needs = {
        refs[one.name]: sorted(refs[other.name] for other in locked if one.name in other.packages) for one in locked
    }
    direct = [refs[one.name] for one in locked if {folder, *(with_shared(folder))} & one.folders]
    needs[root] = sorted([*direct, *(f"pkg:pypi/{name}@{ours[name]}" for name in mine)])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, root + LOCK.read_text())}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": root, "name": image, "version": ours[image]}},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": on} for ref, on in needs.items()],
    }


def main(directory: Path = DIRECTORY) -> int:
    """Write one file for each image."""
    directory.mkdir(parents=True, exist_ok=True)
    for image, folder in folders().items():
        made = document(image, folder)
        file = directory / f"{image}.cdx.json"
        file.write_text(json.dumps(made, indent=1) + "\n")
        sys.stdout.write(f"{file.relative_to(ROOT)}: {len(made['components'])} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
