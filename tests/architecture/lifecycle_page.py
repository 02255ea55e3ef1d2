"""docs/lifecycle.md, made from the rulebook and the tables of legal moves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from closeflow.domain import rulebook
from closeflow.domain.model import OrderStatus
from closeflow.domain.transitions import ORDER_MOVES, POSITION_MOVES, REQUEST_MOVES

from .markdown import table

Status = TypeVar("Status", bound=StrEnum)

HEAD: Final = """# The rules by their labels

Code and tests name rules by these labels (R4, C8, O13, ...). What holds is the code: the legal moves are the tables of
`closeflow.domain.transitions`, everything else that is computed of an order is in `closeflow.domain.orders.status`.
This page is made from them and from `closeflow.domain.rulebook`; `python -m tests.architecture.pages` writes it
anew, and a test fails while it is not what that writes. Where each is held and proven is in [rules](rules.md).
"""
REASON: Final = {"R3b": " ([why](adr/0004-a-refusal-proves-absence-only-once.md))"}
GROUPS: Final = {
    OrderStatus.NEW: "working",
    OrderStatus.PARTIALLY_FILLED: "working",
    OrderStatus.PENDING_CANCEL: "working",
    OrderStatus.SUSPENDED: "paused",
    OrderStatus.DONE_FOR_DAY: "paused",
    OrderStatus.CANCELED: "ended",
    OrderStatus.EXPIRED: "ended",
}
"""In the diagram of orders several statuses are drawn as one; the table under it has every pair."""


def page() -> str:
    """The whole page."""
    rules = ((label, text + REASON.get(label, "")) for label, text in rulebook.RULES.items())
    parts = [
        HEAD,
        "## Words\n" + table(("word", "meaning"), rulebook.WORDS.items()),
        "## Rules\n" + table(("", ""), rules),
        "## Positions\n" + _diagram(POSITION_MOVES, "open", {}),
        table(("move", "when"), rulebook.POSITION.items()),
        "## Close requests\n" + _diagram(REQUEST_MOVES, "pending", {}),
        table(("move", "when"), rulebook.REQUEST.items()),
        "A submitted request never goes back to pending: it would be sent again.\n",
        "## Orders\n" + _diagram(ORDER_MOVES, "planned", GROUPS),
        _pairs(ORDER_MOVES),
        table(("move", "when"), rulebook.ORDER.items()),
    ]
    return "\n".join(parts)


def _diagram(moves: Mapping[tuple[Status, Status], str], start: str, groups: Mapping[Status, str]) -> str:
    """One arrow per pair of statuses (or groups of them), with every label that leads from one to the other."""
    arrows: dict[tuple[str, str], dict[str, None]] = {}
    for (was, to), label in moves.items():
        ends = (groups.get(was, was.value), groups.get(to, to.value))
        if ends[0] != ends[1]:
            arrows.setdefault(ends, {})[label] = None
    lines = [f"    [*] --> {start}"]
    for group in dict.fromkeys(groups.values()):
        members = ", ".join(one for one, its in groups.items() if its == group)
        lines += [f"    {group} : {group} ({members})"]
    lines += [f"    {was} --> {to} : {', '.join(labels)}" for (was, to), labels in sorted(arrows.items())]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"]) + "\n"


def _pairs(moves: Mapping[tuple[Status, Status], str]) -> str:
    """Every pair in one table: from a row's status to a column's. An empty cell is a move that is refused."""
    statuses = list(dict.fromkeys(one for pair in moves for one in pair))
    rows = [(was.value, *(moves.get((was, to), "") for to in statuses)) for was in statuses]
    return table(("from ↓ to →", *(one.value for one in statuses)), rows)
