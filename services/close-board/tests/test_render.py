"""Everything that comes from elsewhere is text on the page, whatever it holds."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser
from typing import Any, Final

import pytest
from records import NOW, at, close_id, over, position

from close_board.asked import Told, Wait
from close_board.read_model import ReadModel, Unreadable
from close_board.render import Fresh, Pages, Screen
from close_board.view import look, stuck
from close_board.viewers import Viewer

EVIL: Final = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><b onclick=alert(3)>"
STILL: Final = timedelta(seconds=30)


class Seen(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def everything(text: str) -> tuple[Screen, ReadModel]:
    """A screen on which every text that is not ours is this one."""
    model = ReadModel()
    model.apply(position(1, symbol=text, account_id=text, reason=text))
    model.apply(position(1, of=2, close=2, symbol=text, account_id=text))
    model.apply(over(2, "failed", of=2, close=2, symbol=text, account_id=text, reason=text))
    model.apply(position(1, of=3, close=3, symbol=text, account_id=text, reason=text))
    model.refuse(Unreadable("position-events", 0, 7, NOW, text, text, 1))
    close = model.closes[close_id(1)]
    wait = Wait(close, text, text, at(1), at(1), text, text, at(9), text)
    incident: dict[str, Any] = {"id": 7, "kind": text, "severity": text, "subject": text, "detail": text}
    incident |= {
        "account_id": text,
        "close_request_id": str(close_id(1)),
        "opened_at": "2026-03-02T15:00:00Z",
        "count": 2,
    }
    light = {"name": text, "colour": text, "says": text}
    told = Told(NOW, [light], [incident], False, {close.id: wait}, [{"scope": text}], text)
    viewer = Viewer("token", text, frozenset({text}), may_operate=True)
    board = look(model, lambda _: True, now=at(100), still_after=STILL)
    found = stuck(board, model, told.waits, lambda _: True, now=at(100), still_after=STILL)
    return Screen(viewer, None, board, found, told, Fresh(NOW, True, (text,)), ""), model


def pages_of(text: str) -> list[str]:
    pages, (screen, model) = Pages(text), everything(text)
    close, told = model.closes[close_id(1)], screen.told
    fact = {"at": "2026-03-02T15:00:00Z", "source": text, "what": text, "detail": {text: text}}
    parts = pages.of_close(close, told, [fact], text, doubted=True, may_operate=True)
    given = {"viewer": screen.viewer, "csrf": "c", "fresh": screen.fresh, "actions": []}
    said = pages.page("said.html", heading=text, said=text, bad=True, back="/")
    login = pages.page("login.html", wrong=text)
    return [pages.board(screen, "csrf"), pages.close(close, parts, **given), said, login]


@pytest.mark.parametrize("n", range(4))
def test_what_others_wrote_is_text_on_every_page(n: int) -> None:
    evil, harmless = Seen(pages_of(EVIL)[n]), Seen(pages_of("harmless")[n])
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in harmless.tags]
    assert [list(attributes) for _, attributes in evil.tags] == [list(attributes) for _, attributes in harmless.tags]
    assert EVIL in evil.text
    assert not any(name.startswith("on") for _, attributes in evil.tags for name in attributes)


def test_the_pages_have_no_script_and_style_but_our_files_and_nothing_from_elsewhere() -> None:
    for page in pages_of("harmless"):
        seen = Seen(page)
        for tag, attributes in seen.tags:
            assert "style" not in attributes
            for name in ("src", "href", "action"):
                value = attributes.get(name)
                assert value is None or value.startswith(("/", "#", "data:,")), (tag, value)
        assert [one["src"] for tag, one in seen.tags if tag == "script"] == ["/static/board.js"]


def test_account_and_instance_are_named_on_every_page_of_a_viewer() -> None:
    for page in pages_of("HERE-1")[:2]:
        head = page[: page.index("<main")]
        assert head.count("HERE-1") >= 3  # The title, the instance and the account.


def test_what_is_old_is_called_so() -> None:
    pages = Pages("test")
    assert "old" not in pages.as_of(Fresh(NOW, False, ()))
    told = pages.as_of(Fresh(NOW, True, ("Kafka does not answer",)))
    assert 'class="as-of old"' in told
    assert "Kafka does not answer" in told


def test_a_row_changes_only_when_what_it_shows_changes() -> None:
    """So that nothing is sent, and nothing on the page moves, while a close merely grows older."""
    pages, (screen, model) = Pages("test"), everything("harmless")
    later = look(model, lambda _: True, now=at(5000), still_after=STILL)
    found = stuck(later, model, screen.told.waits, lambda _: True, now=at(5000), still_after=STILL)
    again = Screen(screen.viewer, None, later, found, screen.told, screen.fresh, "")
    assert pages.rows(again) == pages.rows(screen)
    assert pages.parts(again) == {**pages.parts(screen), "funnel": pages.parts(again)["funnel"]}
