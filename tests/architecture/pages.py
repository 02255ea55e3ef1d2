"""The pages of docs/ that are made from the sources: `python -m tests.architecture.pages` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from . import errors_page, lifecycle_page, metrics_page, rules_page, runbooks_page
from .markdown import DOCS

PAGES: Final[Mapping[Path, Callable[[], str]]] = {
    DOCS / "lifecycle.md": lifecycle_page.page,
    DOCS / "errors.md": errors_page.page,
    DOCS / "rules.md": rules_page.page,
    DOCS / "metrics.md": metrics_page.page,
    DOCS / "runbooks" / "README.md": runbooks_page.page,
}


if __name__ == "__main__":
    for file, page in PAGES.items():
        file.write_text(page())
