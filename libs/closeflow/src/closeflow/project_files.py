"""Where the files are that are no code: migrations, topics, the connector's template.

They lie in folders of the repository, and an image that has them has the same folders above its packages.
"""

from __future__ import annotations

from pathlib import Path


class ProjectFilesMissing(Exception):
    """No folder above this package has the file; the text says which one, and where it would be found."""


def project_path(name: str, *, above: Path | None = None) -> Path:
    """The file or folder of this name, such as "migrations/env.py", in the nearest folder above this file (or `above`)
    that has it. Raises ProjectFilesMissing."""
    here = (above or Path(__file__)).resolve()
    for folder in here.parents:
        if (found := folder / name).exists():
            return found
    raise ProjectFilesMissing(
        f"{name} is in no folder above {here.parent}; run from a checkout of the repository, or in one of its images"
    )
