"""One frame of `closectl top` as rich shows it. Every colour has a word beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from closectl.output import plain, visible
from closectl.top.reading import Frame
from closeflow.domain.enums import RequestStatus
from closeflow.domain.model import CloseRequest
from closeflow.domain.operator.lights import Colour, Light
from closeflow.domain.operator.waiting import Owner, Wait

OLD_AFTER: Final = timedelta(seconds=10)
"""What is older than this is no picture of now."""
SHOWN_INCIDENTS: Final = 8
_FUNNEL: Final = (
    (RequestStatus.PENDING, "to be planned"),
    (RequestStatus.SUBMITTED, "at the broker"),
    (RequestStatus.RETRYABLE, "to be retried"),
    (RequestStatus.COMPLETED, "completed in an hour"),
    (RequestStatus.FAILED, "failed in an hour"),
)
_STYLES: Final = {Colour.GREEN: "green", Colour.AMBER: "yellow", Colour.RED: "bold red"}


def rendered(
    frame: Frame,
    *,
    instance: str,
    accounts: Collection[str] | None,
    age: timedelta,
    trouble: str | None,
    most: int,
) -> RenderableType:
    """The whole screen with at most so many closes. `age` is how long ago the frame was read, `trouble` why there is
    no newer one."""
    return Group(
        _head(frame, instance, accounts, age, trouble),
        _lights(frame.lights),
        _funnel(frame),
        Text(),
        _stuck(frame, most),
        Text(),
        _incidents(frame),
    )


def _head(
    frame: Frame, instance: str, accounts: Collection[str] | None, age: timedelta, trouble: str | None
) -> RenderableType:
    named = "every account" if accounts is None else f"account {', '.join(sorted(accounts))}"
    old = age > OLD_AFTER or trouble is not None
    head = Text.assemble(("closeflow", "bold"), f"  {visible(instance)}  {visible(named)}  ")
    head.append(f"data as of {frame.at:%Y-%m-%d %H:%M:%S} UTC", style="bold red" if old else "green")
    if old:
        head.append(f", {_lasted(age)} OLD", style="bold red")
    if trouble is not None:
        head.append(f": {visible(trouble)}", style="bold red")
    return head


def _lights(lights: Sequence[Light]) -> RenderableType:
    line = Text()
    for light in lights:
        line.append("● ", style=_STYLES[light.colour])
        line.append(f"{light.name} {light.colour}   ")
    told = [light for light in lights if light.colour is not Colour.GREEN]
    return Group(line, *(Text(f"  {one.name}: {visible(one.says)}", style=_STYLES[one.colour]) for one in told))


def _funnel(frame: Frame) -> RenderableType:
    table = _table("state", "closes", "oldest")
    for status, words in _FUNNEL:
        seen = frame.counts.get(status)
        if seen is None:
            table.add_row(words, "0", "")
        else:
            table.add_row(words, f"{seen.count}{' or more' if seen.more else ''}", _lasted(frame.at - seen.oldest))
    return table


def _stuck(frame: Frame, most: int) -> RenderableType:
    if not frame.stuck:
        return Text("nothing is stuck", style="green")
    table = _table("since", "close", "filled", "waits for", "then", "safe now")
    for request, wait in frame.stuck[:most]:
        table.add_row(
            _lasted(frame.at - wait.since),
            Text(visible(f"{request.symbol} {request.side} of {request.account_id}, position {request.position_id}")),
            f"{plain(request.filled_quantity)} of {plain(request.target_quantity)}",
            Text.assemble((wait.waits_for.replace("_", " ").upper(), "bold"), f" {wait.says}"),
            _then(request, wait, frame.at),
            Text(wait.command),
        )
    left = len(frame.stuck) - most
    more = [Text(f"and {left} more that wait for less long")] if left > 0 else []
    return Group(Text(f"{len(frame.stuck)} stuck", style="bold"), table, *more)


def _then(request: CloseRequest, wait: Wait, now: datetime) -> Text:
    text = Text(wait.next_step or "nothing by itself", style="" if wait.next_step else "bold")
    if wait.next_at is not None:
        late = wait.next_at <= now
        text.append(f", {_when(wait.next_at - now)}", style="bold red" if late else "")
    whose = "an operator" if wait.owner is Owner.OPERATOR else wait.owner
    text.append(f"; {whose} acts", style="bold" if wait.owner is Owner.OPERATOR else "dim")
    return text


def _incidents(frame: Frame) -> RenderableType:
    if not frame.incidents:
        return Text("no incident is open", style="green")
    table = _table("number", "since", "severity", "kind", "about", "told")
    for one in frame.incidents[:SHOWN_INCIDENTS]:
        table.add_row(
            str(one.id),
            _lasted(frame.at - one.opened_at),
            Text(one.severity, style="bold red" if one.severity == "critical" else "yellow"),
            one.kind,
            Text(visible(one.subject)),
            Text(visible(one.detail)),
        )
    left = len(frame.incidents) - SHOWN_INCIDENTS
    more = [Text(f"and {left} older ones; `closectl incidents list` has them")] if left > 0 else []
    return Group(Text(f"{len(frame.incidents)} open incidents", style="bold"), table, *more)


def _table(*columns: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _when(ahead: timedelta) -> str:
    return f"in {_lasted(ahead)}" if ahead > timedelta(0) else f"due since {_lasted(-ahead)}"


def _lasted(time: timedelta) -> str:
    seconds = max(0, round(time.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"
