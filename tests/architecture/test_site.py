"""The pages of `make docs` are whole, and need nothing from anywhere else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from close_api.errors import STATUSES
from docs.site.__main__ import OPENAPI, write
from docs.site.grpc_page import described_proto
from docs.site.markup import prose


@dataclass
class Read(HTMLParser):
    """What a page has and where it leads."""

    ids: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[str(value)] += 1
            elif name == "href":
                (self.links if tag == "a" else self.loads).append(str(value))
            elif name == "src":
                self.loads.append(str(value))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    write(made)
    return made


def read(file: Path) -> Read:
    found = Read()
    found.feed(file.read_text())
    return found


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {file.name: read(file) for file in site.glob("*.html")}
    assert len(pages) >= 4
    broken = []
    for name, found in pages.items():
        for link in found.links:
            file, _, anchor = link.partition("#")
            target = pages.get(file or name)
            if target is None or (anchor and anchor not in target.ids):
                broken.append((name, link))
    assert broken == []
    assert sum(len(found.links) for found in pages.values()) > 500


def test_it_opens_from_disk_without_a_network_or_a_script(site: Path) -> None:
    for file in site.glob("*.html"):
        found = read(file)
        assert found.loads == ["style.css"]
        assert found.tags["script"] == 0
        assert [link for link in found.links if "//" in link or link.startswith("/")] == []
    assert "url(" not in (site / "style.css").read_text()
    assert "@import" not in (site / "style.css").read_text()


def test_no_anchor_is_there_twice(site: Path) -> None:
    for file in site.glob("*.html"):
        assert [one for one, times in read(file).ids.items() if times > 1] == [], file.name


def test_the_one_table_of_errors_has_every_code(site: Path) -> None:
    found = read(site / "errors.html")
    assert {*STATUSES} <= {*found.ids}
    assert found.tags["table"] == 1


def test_every_route_field_and_answer_is_on_the_page_of_rest(site: Path) -> None:
    document = json.loads(OPENAPI.read_text())
    found, text = read(site / "rest.html"), (site / "rest.html").read_text()
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["operationId"] in found.ids
    assert {*document["components"]["schemas"]} <= {*found.ids}
    assert {f"header-{name}" for name in document["components"]["headers"]} <= {*found.ids}
    for schema in document["components"]["schemas"].values():
        assert all(f"<code>{name}</code>" in text for name in schema.get("properties", {}))


def test_every_call_message_and_value_is_on_the_page_of_grpc(site: Path) -> None:
    proto = described_proto()
    found, text = read(site / "grpc.html"), (site / "grpc.html").read_text()
    assert {message.name for message in proto.message_type} <= {*found.ids}
    assert {enum.name for enum in proto.enum_type} <= {*found.ids}
    assert {method.name for service in proto.service for method in service.method} <= {*found.ids}
    for message in proto.message_type:
        assert all(f"<code>{one.name}</code>" in text for one in message.field)
    for enum in proto.enum_type:
        assert all(f"<code>{one.name}</code>" in text for one in enum.value)
    assert "How another service closes positions" in text  # The comments come with it.


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One\nparagraph.\n\nTwo <b>.", "<p>One\nparagraph.</p>\n<p>Two &lt;b&gt;.</p>\n"),
        ("Says `a < b`.", "<p>Says <code>a &lt; b</code>.</p>\n"),
        ("- one\nmore\n- two", "<ul><li>one\nmore</li><li>two</li></ul>\n"),
        ("    as it\n      stands", "<pre>as it\n  stands</pre>\n"),
        ("  key   is this\n        and more", "<dl><dt><code>key</code></dt><dd>is this and more</dd></dl>\n"),
    ],
)
def test_text_is_shown_as_it_was_meant(text: str, html: str) -> None:
    assert prose(text) == html
