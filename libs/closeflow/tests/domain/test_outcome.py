"""What the facts about orders make of requests and positions (lifecycle.md: P2-P4, P7, P9, C5-C7, C9, O13, rule Q)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from closeflow.domain.close.outcome import conclude
from closeflow.domain.model import (
    AssetType,
    Book,
    Order,
    OrderStatus,
    PositionStatus,
    RejectClass,
    RequestStatus,
    SendAnswer,
    Side,
    StatementKind,
)
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.transitions import illegal_moves

from .builders import (
    NOW,
    OTHER_ID,
    POLICY,
    REQUEST_ID,
    a_book,
    a_position,
    a_request,
    a_send,
    a_statement,
    an_execution,
    an_order,
    at,
    canceled,
    filled,
    refused,
    settled_once,
    working,
)

P, R, O, K = PositionStatus, RequestStatus, OrderStatus, StatementKind  # noqa: E741
RETRY, TERMINAL = RejectClass.RETRYABLE, RejectClass.TERMINAL
UNSENT: dict[str, Any] = {"sends": ()}
DENIED: dict[str, Any] = {"status": O.DENIED, **UNSENT}
IDLE: dict[str, Any] = {"active_close_request_id": None}
OTHER = a_request(id=OTHER_ID, status=R.FAILED)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Orders and what stood before, then what must stand after."""

    orders: Iterable[Order]
    request: dict[str, Any]
    position: dict[str, Any]
    become: tuple[RequestStatus, PositionStatus]
    reason: str | None = None
    quantity: int | None = None
    unproven: bool = False
    ledger: int | None = None

    def book(self) -> Book:
        book = a_book(*self.orders, position=a_position(**self.position), **self.request)
        return book if self.ledger is None else replace(book, ledger_quantity=Decimal(self.ledger))


def case(*orders: Order, position: dict[str, Any] | None = None, **expected: Any) -> Case:
    names = ("become", "reason", "quantity", "unproven", "ledger")
    kept = {name: expected.pop(name) for name in names if name in expected}
    return Case(orders=orders, request=expected, position=position or {}, **kept)


GAP = an_order(statements=(a_statement(K.CANCELED, 9, 40),))
UNKNOWN = an_order(status=O.SUBMIT_UNKNOWN, sends=(a_send(SendAnswer.UNKNOWN),))
NOT_CLEAR = working(60, request_id=OTHER_ID)

MOVES: dict[str, Case] = {
    # C5 with P2 and P3
    "C5, P2: filled closes the position": case(filled(), become=(R.COMPLETED, P.CLOSED), quantity=0),
    "C5, P3: a partial close leaves the position open": case(
        filled(30), target_quantity=Decimal(30), become=(R.COMPLETED, P.OPEN), quantity=70
    ),
    "C5, P3: open and unproven while another order may still fill": case(
        filled(30), NOT_CLEAR, target_quantity=Decimal(30), become=(R.COMPLETED, P.OPEN), unproven=True
    ),
    "C5: a rest below the lot is a residual": case(
        canceled(done=1),
        target_quantity=Decimal("1.5"),
        asset_type=AssetType.OPTION,
        become=(R.COMPLETED, P.OPEN),
        reason="residual_below_lot",
        quantity=99,
    ),
    "C5: over two attempts": case(canceled(done=40), filled(60, attempt=2), become=(R.COMPLETED, P.CLOSED), quantity=0),
    "C5: user cancel does not undo a reached target": case(
        filled(), cancel_requested_at=NOW, become=(R.COMPLETED, P.CLOSED)
    ),
    "C5: frozen does not undo it either": case(filled(), frozen_reason="x", become=(R.COMPLETED, P.CLOSED)),
    # Nothing to decide yet
    "a working order goes on": case(working(done=40), become=(R.SUBMITTED, P.CLOSING), quantity=60),
    "an unknown order is waited for": case(UNKNOWN, become=(R.SUBMITTED, P.CLOSING)),
    "an order canceled without its quantity is waited for": case(
        an_order(statements=(a_statement(K.CANCELED, 9),)), become=(R.SUBMITTED, P.CLOSING)
    ),
    "done for the day is waited for": case(
        an_order(statements=(a_statement(K.DONE_FOR_DAY, 5, 0),)), become=(R.SUBMITTED, P.CLOSING)
    ),
    "R4: a gap blocks C6": case(GAP, become=(R.SUBMITTED, P.CLOSING)),
    "R4: a gap blocks C5, because only what can be named was filled": case(
        an_order(statements=(a_statement(K.FILLED, 9, 100),)), become=(R.SUBMITTED, P.CLOSING), quantity=100
    ),
    "C6 waits until another order of the position is over": case(
        canceled(), NOT_CLEAR, become=(R.SUBMITTED, P.CLOSING)
    ),
    "R11: frozen waits": case(canceled(), frozen_reason="x", become=(R.SUBMITTED, P.CLOSING)),
    "R11: frozen waits with a terminal rejection too": case(
        refused(reject_class=TERMINAL), frozen_reason="x", become=(R.SUBMITTED, P.CLOSING)
    ),
    "a pending request without an order stays": case(status=R.PENDING, become=(R.PENDING, P.CLOSING)),
    # C6, C6a with P4
    "C6, P4: canceled with a rest is retried": case(
        canceled(done=40), become=(R.RETRYABLE, P.CLOSE_RETRYABLE), reason="canceled", quantity=60
    ),
    "C6: expired is retried": case(
        an_order(statements=(a_statement(K.EXPIRED, 9, 0),)), become=(R.RETRYABLE, P.CLOSE_RETRYABLE), reason="expired"
    ),
    "C6: a retryable rejection is retried": case(
        refused(reject_class=RETRY, reject_code="halted"), become=(R.RETRYABLE, P.CLOSE_RETRYABLE), reason="halted"
    ),
    "C6: the last retry but one is retried": case(
        canceled(), retry_count=2, become=(R.RETRYABLE, P.CLOSE_RETRYABLE), reason="canceled"
    ),
    "C6: a deadline in the future does not matter": case(
        canceled(), deadline_at=at(1), become=(R.RETRYABLE, P.CLOSE_RETRYABLE), reason="canceled"
    ),
    "C6: an old refusal's code is not the reason of a cancel": case(
        canceled(reject_code="old", reject_class=TERMINAL), become=(R.RETRYABLE, P.CLOSE_RETRYABLE), reason="canceled"
    ),
    "C6a: a retryable denial is retried though no retry is left": case(
        an_order(reject_class=RETRY, reject_code="quote", **DENIED),
        retry_count=3,
        become=(R.RETRYABLE, P.CLOSE_RETRYABLE),
        reason="quote",
    ),
    # C7 with P3 and P7
    "C7, P7: a terminal rejection fails": case(
        refused(reject_class=TERMINAL, reject_code="restricted"), become=(R.FAILED, P.CLOSE_FAILED), reason="restricted"
    ),
    "C7, P7: a rejection of no class is terminal": case(
        refused(), become=(R.FAILED, P.CLOSE_FAILED), reason="rejected"
    ),
    "C7, P7: no retry left": case(
        canceled(done=40), retry_count=3, become=(R.FAILED, P.CLOSE_FAILED), reason="retries_exhausted", quantity=60
    ),
    "C6: a breaker's probe that was refused is no retry": case(
        refused(sends=(replace(a_send(SendAnswer.REJECTED), probe=True),), reject_class=RETRY, reject_code="halted"),
        retry_count=3,
        become=(R.RETRYABLE, P.CLOSE_RETRYABLE),
        reason="halted",
    ),
    "C5: a rest that the broker takes no order for is a residual": case(
        canceled(done=90),
        refused(10, attempt=2, reject_class=TERMINAL, reject_code="below_minimum_notional"),
        become=(R.COMPLETED, P.OPEN),
        reason="residual_below_minimum_notional",
        quantity=10,
    ),
    "C7, P7: deadline passed": case(
        canceled(), deadline_at=NOW, become=(R.FAILED, P.CLOSE_FAILED), reason="deadline_passed"
    ),
    "C7, P3: user cancel confirmed": case(
        canceled(done=40), cancel_requested_at=NOW, become=(R.FAILED, P.OPEN), reason="canceled_by_user", quantity=60
    ),
    "C7: user cancel waits for the order's end": case(
        working(), cancel_requested_at=NOW, become=(R.SUBMITTED, P.CLOSING)
    ),
    "C7, P3: a terminal denial before any send": case(
        an_order(reject_class=TERMINAL, reject_code="bad_lot", **DENIED), become=(R.FAILED, P.OPEN), reason="bad_lot"
    ),
    "C7, P7: a terminal denial after an earlier send": case(
        canceled(),
        an_order(attempt=2, reject_class=TERMINAL, reject_code="bad_lot", **DENIED),
        become=(R.FAILED, P.CLOSE_FAILED),
        reason="bad_lot",
    ),
    "P7: failed by time, with an order that may still fill, is unproven": case(
        UNKNOWN, status=R.FAILED, become=(R.FAILED, P.CLOSE_FAILED), unproven=True
    ),
    # C9 with P9
    "C9, P9: a late fill completes what was given up": case(
        filled(),
        status=R.FAILED,
        position={"status": P.CLOSE_FAILED, "exposure_unproven": True, **IDLE},
        become=(R.COMPLETED, P.CLOSED),
        quantity=0,
    ),
    "C9, P9: a late fill completes what waits for its retry": case(
        filled(),
        status=R.RETRYABLE,
        position={"status": P.CLOSE_RETRYABLE},
        become=(R.COMPLETED, P.CLOSED),
    ),
    "C9, P10: and a partial close leaves the position open": case(
        filled(30),
        status=R.RETRYABLE,
        target_quantity=Decimal(30),
        position={"status": P.CLOSE_RETRYABLE},
        become=(R.COMPLETED, P.OPEN),
    ),
    "C9, P2: a late fill completes a pending retry": case(
        filled(), status=R.PENDING, attempt=2, become=(R.COMPLETED, P.CLOSED)
    ),
    "C9: a pending request of a position that is gone": case(
        status=R.PENDING, position={"quantity": 0}, ledger=0, become=(R.COMPLETED, P.CLOSED), reason="externally_closed"
    ),
    "C9: so a submitted one, once its order is over": case(
        canceled(), position={"quantity": 0}, ledger=0, become=(R.COMPLETED, P.CLOSED), reason="externally_closed"
    ),
    "C9: not while its order may still fill": case(
        working(), position={"quantity": 0}, ledger=0, become=(R.SUBMITTED, P.CLOSING), quantity=0
    ),
    "C9, P9: a late fill of a failed request takes what was left": case(
        canceled(done=30),
        status=R.FAILED,
        position={"quantity": 30, "status": P.OPEN, **IDLE},
        ledger=0,
        become=(R.COMPLETED, P.CLOSED),
        reason="externally_closed",
        quantity=0,
    ),
    "a late fill that leaves a rest only lowers the position": case(
        canceled(done=30),
        status=R.FAILED,
        position={"status": P.CLOSE_FAILED, **IDLE},
        become=(R.FAILED, P.CLOSE_FAILED),
        quantity=70,
    ),
    # exposure_unproven
    "FP removes exposure_unproven when the position is clear": case(
        canceled(),
        status=R.FAILED,
        position={"status": P.CLOSE_FAILED, "exposure_unproven": True, **IDLE},
        become=(R.FAILED, P.CLOSE_FAILED),
    ),
    "exposure_unproven stays while it is not": case(
        UNKNOWN,
        status=R.FAILED,
        position={"status": P.CLOSE_FAILED, "exposure_unproven": True, **IDLE},
        become=(R.FAILED, P.CLOSE_FAILED),
        unproven=True,
    ),
    "exposure_unproven is set when a finished request's order lives again": case(
        working(), status=R.FAILED, position={"status": P.OPEN, **IDLE}, become=(R.FAILED, P.OPEN), unproven=True
    ),
    "exposure_unproven does not stop the active request": case(
        working(), position={"exposure_unproven": True}, become=(R.SUBMITTED, P.CLOSING), unproven=True
    ),
}


def mirrored(book: Book) -> Book:
    """The same book of a short position that is bought back."""
    position = replace(
        book.position, quantity=-book.position.quantity, opening_quantity=-book.position.opening_quantity
    )
    requests = {key: replace(one, side=Side.BUY) for key, one in book.requests.items()}
    orders = {
        key: replace(
            one, side=Side.BUY, executions=tuple(replace(execution, side=Side.BUY) for execution in one.executions)
        )
        for key, one in book.orders.items()
    }
    return Book(
        position=position,
        base_quantity=-book.base_quantity,
        ledger_quantity=-book.ledger_quantity,
        requests=requests,
        orders=orders,
    )


@pytest.mark.parametrize("short", [False, True], ids=["long", "short"])
@pytest.mark.parametrize("expected", MOVES.values(), ids=MOVES.keys())
def test_what_the_facts_make_of_the_request_and_the_position(expected: Case, short: bool) -> None:
    book = mirrored(expected.book()) if short else expected.book()
    moved = sum((one.quantity for order in expected.orders for one in order.executions), Decimal(0))
    concluded = settled_once(book)
    request, position = concluded.book.requests[REQUEST_ID], concluded.book.position
    assert (request.status, position.status) == expected.become
    assert request.reason == expected.reason
    assert request.filled_quantity == moved
    assert position.exposure_unproven is expected.unproven
    if expected.quantity is not None:
        assert abs(position.quantity) == expected.quantity
    assert (position.active_close_request_id is not None) == request.unfinished
    assert (request.completed_at is not None) == (request.status is R.COMPLETED)
    assert (request.next_attempt_at is not None) == (request.status is R.RETRYABLE)
    assert (position.closed_at is not None) == (position.status is P.CLOSED)
    assert list(illegal_moves(book, concluded.book)) == []
    again = conclude(concluded.book, concluded.book, now=at(1), policy=POLICY)
    assert (again.book, again.events, again.incidents) == (concluded.book, (), ())


def test_a_closed_position_is_closed_at_its_last_execution() -> None:
    order = an_order(executions=(an_execution("e", 60, occurred_at=at(7)), an_execution("f", 40, occurred_at=at(5))))
    assert settled_once(a_book(order), now=at(60)).book.position.closed_at == at(7)


def test_a_version_covers_everything_that_one_settling_changed() -> None:
    concluded = settled_once(a_book(filled()))
    assert concluded.book.position.version == 6
    assert [(one.event_type, one.position_version) for one in concluded.events] == [("POSITION_CLOSED", 6)]


def test_an_active_request_is_left_active_by_another_ones_late_fill() -> None:
    book = a_book(
        working(70),
        filled(30, request_id=OTHER_ID),
        requests=[a_request(70), replace(OTHER, target_quantity=Decimal(30))],
    )
    concluded = settled_once(book).book
    assert concluded.requests[OTHER_ID].status is R.COMPLETED
    assert concluded.position.active_close_request_id == REQUEST_ID


# Back-off


def test_the_next_attempt_backs_off_within_its_bounds() -> None:
    policy = RetryPolicy(settle_delay_s=1, base_s=1, cap_s=30)
    for retry_count in (0, 1, 5, 1000):
        request = a_request(retry_count=retry_count)
        delay = (policy.next_attempt_at(request, NOW) - NOW).total_seconds()
        assert 1 <= delay <= min(30, 2**retry_count)


def test_the_jitter_differs_between_attempts_and_is_the_same_for_one() -> None:
    policy = RetryPolicy(settle_delay_s=0, base_s=30, cap_s=30)

    def due(request_id: UUID, attempt: int) -> object:
        return policy.next_attempt_at(a_request(id=request_id, attempt=attempt), NOW)

    assert due(REQUEST_ID, 1) == due(REQUEST_ID, 1)
    times = [due(request_id, attempt) for request_id in (REQUEST_ID, OTHER_ID) for attempt in (1, 2, 3)]
    assert all(one != two for one, two in pairwise(times))
