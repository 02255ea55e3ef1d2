"""The lock, the Makefile and the documents say what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from .repository import REPOSITORY, run, tracked_python

MAKEFILE: Final = (REPOSITORY / "Makefile").read_text()
LOCK: Final = (REPOSITORY / "requirements.lock").read_text()
SOURCES: Final = "".join(file.read_text() for file in tracked_python())
RECONCILER: Final = REPOSITORY / "services" / "reconciler" / "src" / "reconciler"
DOMAIN: Final = REPOSITORY / "libs" / "closeflow" / "src" / "closeflow" / "domain"
MAP: Final = (REPOSITORY / "docs" / "architecture.md").read_text()
DOCUMENTS: Final = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", MAKEFILE, flags=re.MULTILINE))


def test_the_lock_names_no_registry() -> None:
    assert "://" not in LOCK
    assert [line for line in LOCK.splitlines() if line.startswith("-")] == []


def test_every_requirement_of_the_lock_is_pinned_and_hashed() -> None:
    requirements = re.findall(r"^(\S.*(?:\n +.*)*)", LOCK, flags=re.MULTILINE)
    pinned = [requirement for requirement in requirements if not requirement.startswith("#")]
    assert len(pinned) > 50
    assert [one for one in pinned if not re.match(r"[\w.-]+(\[[\w,-]+\])?==", one) or "--hash=sha256:" not in one] == []


def test_make_help_lists_every_target() -> None:
    helped = run("make", "--no-print-directory", "help")
    assert helped.returncode == 0, helped.stderr
    assert set(re.findall(r"^  make (\S+) +\S", helped.stdout, flags=re.MULTILINE)) == targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_name_targets_and_files_that_exist(document: Path) -> None:
    text = document.read_text()
    assert {*re.findall(r"`make ([a-z][\w-]*)", text)} <= targets()
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [test for test in re.findall(r"`(test_\w+)`", text) if f"def {test}(" not in SOURCES] == []
    files = re.findall(
        r"`((?:tests|libs|services|closectl|devstack|demo|connect|schemas|migrations|bench|docs)/[\w./-]+)`", text
    )
    assert [file for file in files if not (REPOSITORY / file).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    linked = {*re.findall(r"\]\(([^)#]+)", (REPOSITORY / "README.md").read_text())}
    indexed = {"adr", "runbooks"}
    pages = {str(page.relative_to(REPOSITORY)) for page in DOCUMENTS[1:] if page.parent.name not in indexed}
    assert pages | {f"docs/{name}/README.md" for name in indexed} <= linked


def test_the_map_has_every_part_of_the_domain() -> None:
    parts = {one.stem for one in DOMAIN.iterdir() if one.suffix == ".py" or (one / "__init__.py").exists()}
    assert {part for part in parts - {"__init__"} if f"`{part}`" not in MAP} == set()


def test_the_operations_page_has_every_job_of_the_reconciler() -> None:
    """And none that does not run: `Job("name", ...)` schedules one, the audit runs by itself."""
    scheduled = re.findall(r'\bJob\("(\w+)"', (RECONCILER / "__main__.py").read_text())
    jobs = (REPOSITORY / "docs" / "operations.md").read_text().split("| job | what it looks for")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z_]+)`", "".join(line.split("|")[1] for line in jobs.splitlines()[2:]))
    assert sorted(named) == sorted([*scheduled, "audit_publication"])
    assert sorted(named) == sorted(file.stem for file in (RECONCILER / "jobs").glob("[a-z]*.py"))


def test_sources_name_pages_that_exist() -> None:
    pages = {path.name for path in DOCUMENTS}
    named = {
        (path, page)
        for path in tracked_python()
        for page in re.findall(r"\b(?:[\w-]+/)*([a-z0-9-]+\.md)\b", path.read_text())
    }
    assert [(str(path), page) for path, page in sorted(named) if page not in pages] == []
