"""Show a comparison: the days that differ with all their sums, then a line per difference; or all of it as JSON."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from closectl.output import console, plain, print_rows, visible
from closectl.reconciling.items import Comparison, DayTotals, Difference, Source


def print_comparison(found: Comparison, *, every_day: bool) -> None:
    """Days that agree are counted, and shown only where `every_day` is wanted."""
    shown = [one for one in found.days if every_day or not one.agrees]
    if shown:
        columns = ("account", "symbol", "day", "currency", *(name for source in Source for name in _names(source)))
        print_rows([_day_row(one) for one in shown], columns)
        console.print()
    for one in found.differences:
        _line(f"{one.kind}: {_where(one)}{one.subject}: {one.detail}", style="red")
    for note in notes(found):
        _line(note, style="dim")
    agree = sum(one.agrees for one in found.days)
    verdict = f"{len(found.differences)} differences" if found.differences else "no difference"
    counts = ", ".join(f"{number} from {_of(source)}" for source, number in found.counts.items())
    _line(f"{verdict}; {agree} of {len(found.days)} days agree ({counts})", style="bold")


def notes(found: Comparison) -> list[str]:
    """What was left out of the comparison, and why."""
    told = [f"not compared: {why}" for why in found.not_compared]
    if found.too_new:
        told.append(
            f"left out: {found.too_new} executions and charges too new for every source to have them; --wait waits"
        )
    if found.foreign:
        told.append(f"left out: {found.foreign} of the broker's executions, of orders that are not ours")
    if found.taken_as_told.get(Source.EVENTS):
        told.append(
            f"taken as booked: {found.taken_as_told[Source.EVENTS]} executions whose events Kafka no longer keeps"
        )
    if found.taken_as_told.get(Source.BROKER):
        number = found.taken_as_told[Source.BROKER]
        told.append(f"taken as booked: {number} busts and corrections, which the broker's list does not have")
    return told


def comparison_json(found: Comparison) -> dict[str, Any]:
    """The comparison as --json prints it."""
    return {
        "at": found.at,
        "agrees": found.agrees,
        "counts": {str(source): number for source, number in found.counts.items()},
        "too_new": found.too_new,
        "foreign": found.foreign,
        "not_compared": found.not_compared,
        "taken_as_told": {str(source): number for source, number in found.taken_as_told.items()},
        "days": [_day_json(one) for one in found.days],
        "differences": [_difference_json(one) for one in found.differences],
    }


def _day_json(one: DayTotals) -> dict[str, Any]:
    return {
        "account": one.of.account_id,
        "symbol": one.of.symbol,
        "day": one.of.day.isoformat(),
        "currency": one.of.currency,
        "agrees": one.agrees,
        **{
            str(source): None if said is None else {"quantity": said.quantity, "cash": said.cash}
            for source, said in one.by_source.items()
        },
    }


def _difference_json(one: Difference) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "account": one.account_id or None,
        "symbol": one.symbol or None,
        "day": None if one.day is None else one.day.isoformat(),
        "subject": one.subject,
        "cash": one.cash,
        "detail": one.detail,
    }


def _day_row(one: DayTotals) -> dict[str, Any]:
    row: dict[str, Any] = {
        "account": one.of.account_id,
        "symbol": one.of.symbol,
        "day": one.of.day,
        "currency": one.of.currency,
    }
    for source, said in one.by_source.items():
        quantity, cash = _names(source)
        row |= {quantity: "-", cash: "-"} if said is None else {quantity: said.quantity, cash: said.cash}
    return row


def _names(source: Source) -> tuple[str, str]:
    return f"{source} qty", f"{source} cash"


def _of(source: Source) -> str:
    return {Source.EVENTS: "execution-events", Source.EXECUTIONS: "the ledger", Source.BROKER: "the broker"}[source]


def _where(one: Difference) -> str:
    named = " ".join(plain(part) for part in (one.account_id, one.symbol, one.day) if part)
    return f"{named}: " if named else ""


def _line(text: str, *, style: str = "") -> None:
    console.print(escape(visible(text)), style=style or None, highlight=False, soft_wrap=True)
