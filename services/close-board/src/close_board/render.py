"""Pages and the parts of them that change, as HTML. Jinja escapes everything that is put in: nothing is marked safe
but what a template of ours has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.environment import TemplateModule
from markupsafe import Markup

from close_board.asked import Told
from close_board.read_model import Close
from close_board.view import Board, Stuck, stage_of
from close_board.viewers import Viewer
from closeflow.domain.text import decimal_text, time_text
from closeflow.domain.trading_controls import GLOBAL

_MOST_SCOPES: Final = 20


class Fresh(NamedTuple):
    """How old what is shown is: as of when it is whole, and why it is called old."""

    at: datetime | None
    old: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Screen:
    """All that a page is made of; `account` is what it is narrowed to."""

    viewer: Viewer
    account: str | None
    board: Board
    stuck: Stuck
    told: Told
    fresh: Fresh
    reading: str
    """How far the log is read, while it is read for the first time; else empty."""


def _moment(at: datetime | str) -> datetime:
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def _iso(at: datetime | str) -> str:
    return time_text(_moment(at))


def _clock(at: datetime | str, exact: bool = False) -> str:
    told = _moment(at)
    return f"{told:%Y-%m-%d %H:%M:%S.%f}"[: 23 if exact else 19] + " UTC"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _scope_of(viewer: Viewer, account: str | None) -> str:
    """Which accounts the screen is of, named on every one."""
    if account is not None:
        return f"account {account}"
    if viewer.accounts is None:
        return "all accounts"
    return ("accounts " if len(viewer.accounts) != 1 else "account ") + ", ".join(sorted(viewer.accounts))


def _scopes_of(viewer: Viewer, told: Told, account: str | None) -> list[str]:
    """Of the kill switch, those that the viewer may set and is likely to mean."""
    if account is not None:
        return [account]
    known = {GLOBAL, *(str(one["scope"]) for one in told.controls)}
    scopes = known if viewer.accounts is None else viewer.accounts
    return sorted(scopes, key=lambda one: (one != GLOBAL, one))[:_MOST_SCOPES]


def title_of(screen: Screen) -> str:
    """What a tab in the background says."""
    return f"{screen.stuck.total} stuck · {_scope_of(screen.viewer, screen.account)}"


class Pages:
    """`instance` is named on each."""

    def __init__(self, instance: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("close_board"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "instance": instance,
            "iso": _iso,
            "clock": _clock,
            "seconds": _seconds,
            "number": decimal_text,
            "stage_of": stage_of,
            "scope_of": _scope_of,
            "scopes_of": _scopes_of,
        }
        self._parts: Any = self._module("parts.html")
        self._close_parts: Any = self._module("close_parts.html")

    def _module(self, name: str) -> TemplateModule:
        return self._environment.get_template(name).module

    def page(self, name: str, *, viewer: Viewer | None = None, account: str | None = None, **given: object) -> str:
        """A whole page."""
        return self._environment.get_template(name).render(viewer=viewer, account=account, **given)

    def parts(self, screen: Screen) -> dict[str, str]:
        """The parts of the board that change, by their ids."""
        board, told = screen.board, screen.told
        return {
            "as-of": str(self._parts.as_of(screen.fresh)),
            "reading": screen.reading,
            "lights": str(self._parts.lights(told)),
            "funnel": str(self._parts.funnel(board)),
            "stuck-summary": str(self._parts.stuck_said(screen.stuck)),
            "incidents": str(self._parts.incidents(told, screen.viewer.may_operate)),
            "unread": str(self._parts.unread(board)),
            "controls": str(self._parts.controls(told, screen.viewer, screen.account)),
        }

    def rows(self, screen: Screen) -> dict[str, str]:
        """The rows of stuck closes by their ids, in their order."""
        made, doubted = self._parts.stuck_row, screen.board.doubted
        return {
            f"close-{row.close.id}": str(made(row.close, row.wait, row.published, row.close.position_id in doubted))
            for row in screen.stuck.rows
        }

    def board(self, screen: Screen, csrf: str) -> str:
        """The page."""
        return self.page(
            "board.html",
            viewer=screen.viewer,
            account=screen.account,
            csrf=csrf,
            title=title_of(screen),
            board=screen.board,
            stuck=screen.stuck,
            told=screen.told,
            fresh=screen.fresh,
            reading=screen.reading,
            rows=[Markup(one) for one in self.rows(screen).values()],
        )

    def of_close(
        self,
        close: Close,
        told: Told,
        facts: Sequence[Mapping[str, Any]],
        away: str | None,
        *,
        doubted: bool,
        may_operate: bool,
    ) -> dict[str, str]:
        """The parts of a close's own page that change."""
        of_it = [one for one in told.incidents if one.get("close_request_id") == str(close.id)]
        narrowed = Told(told.at, incidents=of_it, away=told.away)
        return {
            "state": str(self._close_parts.state(close, told.waits.get(close.id), doubted)),
            "incidents": str(self._parts.incidents(narrowed, may_operate)),
            "timeline": str(self._close_parts.timeline(facts, away)),
        }

    def close(self, close: Close, parts: Mapping[str, str], **given: Any) -> str:
        """A close's own page."""
        made: dict[str, Any] = {name: Markup(html) for name, html in parts.items()}
        return self.page("close.html", close=close, account=close.account, **made, **given)

    def as_of(self, fresh: Fresh) -> str:
        """The part that says how old the rest is."""
        return str(self._parts.as_of(fresh))
