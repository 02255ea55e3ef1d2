"""docs/rules.md: where each rule and each move is held, and what proves it, by the labels in code and tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from closeflow.domain import rulebook

from .markdown import link, table
from .repository import REPOSITORY, tracked_python

HEAD: Final = """# Where each rule is held

The rules and moves of [lifecycle](lifecycle.md), the code that names each as what it holds, and the tests that name
it as what they prove. What is in the domain stands for what calls it; only a rule that the domain does not hold has
other code here. In brackets are functions and classes; without them it is the module. Made from the docstrings and
comments by `python -m tests.architecture.pages`; a test fails while this is not what that writes, and while a rule
has no code or no test.
"""
LABELS: Final = {**rulebook.RULES, **rulebook.POSITION, **rulebook.REQUEST, **rulebook.ORDER}
MENTION: Final = re.compile(
    r"(?<![\w$/-])([RPCO])([0-9]+)([ab]?)(?:-[RPCO]?([0-9]+))?(?![\w-])|\brule (Q)\b", re.IGNORECASE
)
"""One label, or a range of them such as C5-C7."""
HOMES: Final = ("libs/closeflow/src/closeflow/domain/", "libs/closeflow/src/", "")
HOMES_OF_TESTS: Final = ("libs/closeflow/tests/domain/test_", "")
"""Where a label is looked for first; only where it is not there, in the next."""
SOURCES: Final = ("libs/closeflow/src", "services", "closectl/src")
NO_HOLDERS: Final = ("rulebook.py", "transitions.py")
"""They list the labels."""
NO_PROOFS: Final = ("architecture", "simulation", "mutants", "plants.py", "plants_of_progress.py", "plants_of_sends.py")
"""In `plants`, $R1 and $O1 are rows."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A file that names a label, and the function or class in it that does, if it is not the module."""

    file: str
    name: str

    @property
    def is_test(self) -> bool:
        """Whether it proves, and does not hold."""
        return "/tests/" in f"/{self.file}"


def page() -> str:
    """The whole page."""
    found = places()
    parts = [HEAD]
    for title, labels in (
        ("Rules", rulebook.RULES),
        ("Positions", rulebook.POSITION),
        ("Close requests", rulebook.REQUEST),
        ("Orders", rulebook.ORDER),
    ):
        rows = ((label, text.split(". ")[0], *cells(found[label])) for label, text in labels.items())
        parts.append(f"## {title}\n" + table(("", "what it says", "code", "test"), rows))
    return "\n".join(parts)


@cache
def places() -> Mapping[str, frozenset[Place]]:
    """By label, every place of the sources and the tests that names it."""
    found: dict[str, set[Place]] = {label: set() for label in LABELS}
    for file in tracked_python():
        name = str(file.relative_to(REPOSITORY))
        if not name.startswith((*SOURCES, "tests", "libs/closeflow/tests", "closectl/tests")) or "simulator" in name:
            continue
        if {*file.parts} & {*NO_HOLDERS, *NO_PROOFS}:
            continue
        for label, inside in mentions(file):
            found[label].add(Place(name, inside))
    return {label: frozenset(some) for label, some in found.items()}


def mentions(file: Path) -> Iterator[tuple[str, str]]:
    """Each label that a file names, with the innermost function or class around it; "" for the module."""
    text = file.read_text()
    spans = [
        (min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.end_lineno or 0, node.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    for number, line in enumerate(text.splitlines(), start=1):
        around = [(first, name) for first, last, name in spans if first <= number <= last]
        for match in MENTION.finditer(line):
            for label in named(match):
                yield label, max(around)[1] if around else ""


def named(match: re.Match[str]) -> Iterator[str]:
    """The labels of a mention; what is none of ours (a role P1 of somebody else's) is left out."""
    kind, first, suffix, last, alone = match.groups()
    if alone is not None:
        yield "Q"
        return
    for n in range(int(first), int(last or first) + 1):
        yield from (
            one
            for one in (f"{kind}{n}{suffix}", f"{kind}{n}a", f"{kind}{n}b")
            if one in LABELS and (last or one == f"{kind}{n}{suffix}")
        )


def cells(of: frozenset[Place]) -> tuple[str, str]:
    """The code and the tests of one label."""
    code = {one for one in of if not one.is_test}
    return _listed(_nearest(code, HOMES)), _listed(_nearest(of - code, HOMES_OF_TESTS))


def _nearest(of: Iterable[Place], homes: tuple[str, ...]) -> list[Place]:
    found = ([one for one in of if one.file.startswith(home)] for home in homes)
    return next(filter(None, found), [])


def _listed(of: Iterable[Place]) -> str:
    by_file: dict[str, list[str]] = {}
    for one in sorted(of):
        by_file.setdefault(one.file, []).append(one.name)
    return "; ".join(
        link(_short(file), REPOSITORY / file)
        + (f" ({', '.join(inside)})" if (inside := [one for one in names if one]) else "")
        for file, names in by_file.items()
    )


def _short(file: str) -> str:
    """A file as the layout names it: by its folder and module, or a test by its name."""
    path = Path(file).with_suffix("")
    return path.stem if path.stem.startswith("test_") else "/".join(path.parts[-2:])
