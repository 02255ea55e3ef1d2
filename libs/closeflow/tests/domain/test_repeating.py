"""Whether an id that the broker does not have may be sent again without a person (rule R6, ADR 0022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.domain.model import Book, Order, OrderStatus, SendAnswer, Side
from closeflow.domain.sending.absence import BROKER_ASKED, Asked, Known, may_repeat

from .builders import a_book, a_position, a_send, an_order, at

LATE: Final = 100
"""Seconds: the lease of every send is over at 30, and the broker must not have found the order for 60 after it."""
ORDER: Final = an_order(sends=(a_send(None),), status=OrderStatus.SUBMIT_UNKNOWN, not_found_count=5)
HELD: Final = ORDER.quantity


@dataclass(frozen=True, kw_only=True)
class Case:
    """By itself an order that may be sent again: of all that is held, by a sender that is gone, never found."""

    order: Order = ORDER
    held_by_us: Decimal = HELD
    expected: Decimal = HELD
    held_there: Decimal = HELD
    looked_up: str | None = None
    executions: tuple[str, ...] = ()
    exited: tuple[str, ...] = ("s1", "s2")
    says_it_closes: tuple[str, ...] = ("s1", "s2")
    refuses_to_exceed: bool = True
    now: float = LATE
    unasked: bool = False

    @property
    def book(self) -> Book:
        return a_book(self.order, position=a_position(int(self.held_by_us)))

    def missing(self) -> set[str]:
        asked = Asked(
            order=self.order,
            at=at(self.now),
            looked_up=self.looked_up,
            executions=self.executions,
            held=self.held_there,
        )
        points = may_repeat(
            self.book,
            self.order,
            "not yet" if self.unasked else asked,
            Known(
                exited={one: at(20) for one in self.exited},
                says_it_closes=self.says_it_closes,
                expected=self.expected,
            ),
            refuses_to_exceed=self.refuses_to_exceed,
            now=at(self.now),
            within=timedelta(seconds=60),
        )
        return {one.name for one in points if not one.holds}


def sent(*answers: SendAnswer | None) -> Order:
    sends = (replace(a_send(answer, n=n), sender=f"s{n}") for n, answer in enumerate(answers, start=1))
    return replace(ORDER, sends=tuple(sends))


SHORT: Final = replace(ORDER, side=Side.BUY)
REPEATED: Final[dict[str, dict[str, Any]]] = {
    "a sale of all that is held, whose sender died": {},
    "a purchase of all that is short": {
        "order": SHORT,
        "held_by_us": -HELD,
        "expected": -HELD,
        "held_there": -HELD,
    },
    "its sender itself does not know what became of it": {"order": sent(SendAnswer.UNKNOWN), "exited": ()},
    "the first send never left, the second is unknown": {"order": sent(SendAnswer.NOT_SENT, None)},
    "it was sent again before, and that sender died too": {"order": sent(None, None)},
    "a sender of what never left did not say that it closes": {
        "order": sent(SendAnswer.NOT_SENT, None),
        "says_it_closes": ("s2",),
    },
}
REFUSED: Final[dict[str, tuple[dict[str, Any], set[str]]]] = {
    "the broker lets an order exceed the position": ({"refuses_to_exceed": False}, {"refuses to exceed"}),
    "the first send did not say that it closes": ({"says_it_closes": ("s2",)}, {"refuses to exceed"}),
    "an earlier of two did not": (
        {"order": sent(SendAnswer.UNKNOWN, None), "says_it_closes": ("s2",)},
        {"refuses to exceed"},
    ),
    "it closes a part": (
        {"held_by_us": HELD * 2, "expected": HELD * 2, "held_there": HELD * 2},
        {"whole position"},
    ),
    "another position has more of the symbol": (
        {"expected": HELD + 5, "held_there": HELD + 5},
        {"whole position"},
    ),
    "the broker holds more than we know": ({"held_there": HELD * 2}, {"position", "whole position"}),
    "the broker holds nothing any more": ({"held_there": Decimal(0)}, {"position", "whole position"}),
    "it would open": ({"order": SHORT}, {"whole position"}),
    "a sender may live": ({"exited": ()}, {"senders exited", "not found"}),
    "the sender of one of two may live": (
        {"order": sent(None, None), "exited": ("s2",)},
        {"senders exited", "not found"},
    ),
    "four not-founds": ({"order": replace(ORDER, not_found_count=4)}, {"not found"}),
    "59 seconds after the last lease": ({"now": 89}, {"not found"}),
    "it is found now": ({"looked_up": "the broker has it: new"}, {"look-up"}),
    "an execution of it is listed": ({"executions": ("e1",)}, {"executions"}),
    "the broker's own evidence is missing": ({"unasked": True}, {BROKER_ASKED}),
    "the broker acknowledged it once": ({"order": sent(SendAnswer.ACCEPTED, None)}, {"never answered"}),
    "the broker refused it once": ({"order": sent(SendAnswer.REJECTED, None)}, {"never answered"}),
    "it was never sent": ({"order": replace(ORDER, sends=(), status=OrderStatus.PLANNED)}, {"sent", "not found"}),
}


@pytest.mark.parametrize("changes", REPEATED.values(), ids=REPEATED)
def test_it_may_go_out_again_when(changes: dict[str, Any]) -> None:
    assert Case(**changes).missing() == set()


@pytest.mark.parametrize(("changes", "lacks"), REFUSED.values(), ids=REFUSED)
def test_it_waits_for_a_person_when(changes: dict[str, Any], lacks: set[str]) -> None:
    assert Case(**changes).missing() == lacks
