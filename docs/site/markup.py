"""The parts that every page is made of: its frame, and text as it stands in descriptions and comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

STYLE: Final = Path(__file__).with_name("style.css")
PAGES: Final = (
    ("index.html", "Overview"),
    ("rest.html", "REST"),
    ("grpc.html", "gRPC"),
    ("errors.html", "Errors"),
    ("topics.html", "Topics"),
)
_TERM: Final = re.compile(r" {2,}([\w-]+) {2,}(\S.*)")
_CODE: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of a page's contents: `anchor` is an id on the page, `shown` is HTML."""

    anchor: str
    shown: str
    under: Sequence[Section] = ()


def page(name: str, title: str, body: str, contents: Sequence[Section] = ()) -> str:
    """A whole page that needs nothing but `style.css` beside it."""
    places = "".join(
        f'<a href="{file}"{" aria-current=page" if file == name else ""}>{text}</a>' for file, text in PAGES
    )
    nav = f'<nav aria-label="On this page">{_listed(contents)}</nav>' if contents else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · closeflow</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<header><strong>closeflow</strong>{places}</header>
<div class="{"with-contents" if contents else "alone"}">
{nav}
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</div>
</body>
</html>
"""


def prose(text: str) -> str:
    """Paragraphs, lists of lines that begin with "- ", and what is indented as it stands."""
    return "".join(_block(block) for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip())


def inline(text: str) -> str:
    """One line of text, with `code` in backticks."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML."""
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'


def example(name: str, value: object, link: str = "") -> str:
    """What opens to show an example: text as it stands, anything else as JSON. `link` is HTML before the name."""
    shown = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<details><summary>{link} {inline(name)}</summary><pre>{escape(shown, quote=False)}</pre></details>\n"


def _listed(sections: Sequence[Section]) -> str:
    items = "".join(
        f'<li><a href="#{escape(one.anchor)}">{one.shown}</a>{_listed(one.under) if one.under else ""}</li>'
        for one in sections
    )
    return f"<ul>{items}</ul>"


def _block(block: str) -> str:
    lines = block.splitlines()
    if all(map(_TERM.match, lines[:1])) and all(line.startswith("  ") for line in lines):
        return _terms(lines)
    if all(line.startswith("  ") for line in lines) and not _is_wrapped(lines):
        return f"<pre>{escape(_dedented(lines), quote=False)}</pre>\n"
    if lines[0].startswith("- "):
        items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
        return f"<ul>{''.join(f'<li>{inline(one.strip())}</li>' for one in items)}</ul>\n"
    return f"<p>{inline(block.strip())}</p>\n"


def _terms(lines: Sequence[str]) -> str:
    """What begins with a word and a gap is explained behind it, and in the lines that are set in as far."""
    items: list[list[str]] = []
    for line in lines:
        if found := _TERM.match(line):
            items.append([found[1], found[2]])
        else:
            items[-1].append(line.strip())
    shown = "".join(f"<dt><code>{escape(term)}</code></dt><dd>{inline(' '.join(said))}</dd>" for term, *said in items)
    return f"<dl>{shown}</dl>\n"


def _is_wrapped(lines: Sequence[str]) -> bool:
    """Sentences that are only set in, not what has to stand as it is."""
    return len(lines) > 1 and max(map(len, lines)) > 95


def _dedented(lines: Sequence[str]) -> str:
    margin = min(len(line) - len(line.lstrip()) for line in lines if line)
    return "\n".join(line[margin:] for line in lines)
