"""Rule R6: which evidence lets an operator declare an order lost, and what that makes of its close (O18-O20, P8)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.model import (
    ZERO,
    Book,
    BrokerStatus,
    ExecType,
    Order,
    OrderStatus,
    PositionStatus,
    RequestStatus,
    SendAnswer,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.operator.declare_lost import declare_lost
from closeflow.domain.operator.requests import Already, Done, Outcome, Refused
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.sending.absence import Asked, Known, evidence, window
from closeflow.domain.transitions import illegal_moves

from .builders import (
    REQUEST_ID,
    a_book,
    a_position,
    a_send,
    a_statement,
    an_order,
    an_update,
    at,
    book_after,
    canceled,
    working,
)

ORDER = an_order().client_order_id
WITHIN = timedelta(seconds=60)
GONE = {"s1": at(20)}
LATE = 100
"""Seconds: the lease of every send is over at 30, and the broker must not have found the order for 60 after it."""


def unknown(answer: SendAnswer | None = None, **changes: Any) -> Order:
    sends = (a_send(answer),)
    return an_order(**{"sends": sends, "status": OrderStatus.SUBMIT_UNKNOWN, "not_found_count": 5, **changes})


def asked(known_as: Order, **changes: Any) -> Asked:
    told = Asked(order=known_as, at=at(LATE), looked_up=None, executions=(), held=Decimal(100))
    return replace(told, **changes)


def known(**changes: Any) -> Known:
    return replace(Known(exited=GONE, expected=Decimal(100)), **changes)


def missing(order: Order, answer: Asked | str | None = None, tables: Known | None = None, *, now: float = LATE) -> Any:
    """The names of what is missing of the evidence."""
    points = evidence(order, answer or asked(order), tables or known(), now=at(now), within=WITHIN)
    return {one.name for one in points if not one.holds}


def lose(book: Book, **changes: Any) -> Outcome:
    order = book.orders[ORDER]
    points = evidence(order, asked(order, **changes), known(), now=at(LATE), within=WITHIN)
    return declare_lost(book, {ORDER: points}, reason="broker confirms", now=at(LATE), only=ORDER)


@pytest.mark.parametrize("answer", [None, SendAnswer.UNKNOWN])
def test_the_whole_evidence_holds(answer: SendAnswer | None) -> None:
    assert missing(unknown(answer)) == set()


@pytest.mark.parametrize(
    ("order", "now", "lacks"),
    [
        pytest.param(unknown(not_found_count=4), LATE, "not found", id="four not-founds"),
        pytest.param(unknown(), 89, "not found", id="59 seconds after the last lease"),
        pytest.param(
            unknown(sends=(a_send(None), replace(a_send(SendAnswer.UNKNOWN, n=2), lease_until=at(60)))),
            LATE,
            "not found",
            id="a later send has a later lease",
        ),
        pytest.param(an_order(sends=()), LATE, "sent", id="it was never sent"),
        pytest.param(canceled(), LATE, "sent", id="it is over by the broker's word"),
        pytest.param(
            unknown(statements=(a_statement(StatementKind.PARTIALLY_FILLED, 3, 40),)),
            LATE,
            "fills named",
            id="a fill of it has no name",
        ),
    ],
)
def test_what_the_order_itself_lacks(order: Order, now: float, lacks: str) -> None:
    assert lacks in missing(order, now=now)


def test_a_sender_that_may_still_write_stands_in_the_way() -> None:
    assert missing(unknown(), tables=known(exited={})) == {"senders exited", "not found"}
    assert missing(unknown(SendAnswer.UNKNOWN), tables=known(exited={})) == set()


def test_what_was_not_found_before_the_sender_exited_proves_nothing() -> None:
    tables = known(exited={"s1": at(70)})
    assert missing(unknown(), tables=tables, now=129) == {"not found"}
    assert missing(unknown(), tables=tables, now=130) == set()


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        pytest.param({"looked_up": "the broker has it: new"}, "look-up", id="it is found now"),
        pytest.param({"looked_up": "the broker did not say: 503"}, "look-up", id="a 503 is no evidence"),
        pytest.param({"executions": ("e9",)}, "executions", id="the broker lists an execution"),
        pytest.param({"held": Decimal(90)}, "position", id="the broker holds less than we think"),
        pytest.param({"order": unknown(SendAnswer.ACCEPTED)}, "nothing newer", id="an answer came meanwhile"),
    ],
)
def test_what_the_broker_says_against_it(changes: dict[str, Any], lacks: str) -> None:
    assert missing(unknown(), asked(unknown(), **changes)) == {lacks}


def test_a_broker_that_cannot_be_asked_is_no_evidence() -> None:
    assert missing(unknown(), "no answer") == {"broker asked"}


def test_an_acknowledged_order_that_the_broker_denies_since() -> None:
    order = working(100, 40, last_broker_update_at=at(5))
    answer = asked(order, executions=("e1",))
    assert missing(order, answer, known(denied=(5, at(10)))) == set()
    assert missing(order, answer, known(denied=(4, at(10)))) == {"not found"}
    assert missing(order, answer, known(denied=(5, at(50)))) == {"not found"}
    assert missing(order, answer, known(denied=(9, at(4)))) == {"not found"}, "it was heard of after that"
    assert missing(order, answer, known()) == {"not found"}


def test_the_window_is_a_minute_or_three_visibility_lags() -> None:
    assert (window(5), window(30)) == (timedelta(seconds=60), timedelta(seconds=90))


def test_a_lost_order_has_no_exposure_and_its_close_goes_on() -> None:
    book = a_book(unknown())
    outcome = lose(book)
    assert isinstance(outcome, Done)
    assert list(illegal_moves(book, outcome.book)) == []
    order = outcome.book.orders[ORDER]
    word = order_status.statement(order, StatementKind.LOST)
    assert (order.status, exposure.exposure(order), order.next_send_at) == (OrderStatus.LOST, ZERO, None)
    assert word is not None
    assert (word.source, word.detail, word.broker_seq) == ("operator", "broker confirms", order.broker_update_seq)
    assert outcome.book.requests[REQUEST_ID].status is RequestStatus.RETRYABLE
    assert isinstance(lose(outcome.book), Already)


def test_everything_that_is_missing_is_told() -> None:
    outcome = lose(a_book(unknown(not_found_count=0)), held=Decimal(3))
    assert isinstance(outcome, Refused)
    assert [reason.split(": ")[:2] for reason in outcome.reasons] == [
        [f"order {ORDER}", "not found"],
        [f"order {ORDER}", "position"],
    ]


def test_a_lost_order_that_is_found_again_lives_and_freezes_its_close() -> None:
    outcome = lose(a_book(unknown()))
    assert isinstance(outcome, Done)
    found = an_update(ExecType.NEW, BrokerStatus.NEW, seq=3, cum=0, order_quantity=Decimal(100))
    book, _ = book_after(outcome.book, found, now=at(LATE + 1))
    assert book.orders[ORDER].status is OrderStatus.NEW
    assert book.requests[REQUEST_ID].frozen_reason == "record_was_wrong"


LISTED: dict[str, Any] = {"seq": 1, "cum": 0, "transact_time": at(0), "source": UpdateSource.QUERY}


@pytest.mark.parametrize("heard_s", [1, -3600, -300, 300, 3600])
@pytest.mark.parametrize("status", [BrokerStatus.NEW, BrokerStatus.SUSPENDED, BrokerStatus.PENDING_CANCEL, None])
def test_a_lost_order_that_is_listed_again_lives_though_nothing_of_it_has_changed(
    status: BrokerStatus | None, heard_s: float
) -> None:
    """Whatever the clock of the host that heard it shows, or the database's was set to: exposure 0 would sell twice."""
    first = an_update(ExecType.ORDER_STATUS, status, **LISTED, received_at=at(1))
    book, _ = book_after(a_book(unknown()), first)
    denied = known(denied=(5, at(10)))
    points = evidence(book.orders[ORDER], asked(book.orders[ORDER]), denied, now=at(LATE), within=WITHIN)
    outcome = declare_lost(book, {ORDER: points}, reason="r", now=at(LATE), only=ORDER)
    assert isinstance(outcome, Done)
    book = outcome.book
    assert book.orders[ORDER].status is OrderStatus.LOST

    again = an_update(ExecType.ORDER_STATUS, status, **LISTED, received_at=at(LATE + heard_s))
    found, _ = book_after(book, again)
    assert found.orders[ORDER].status is not OrderStatus.LOST
    assert exposure.exposure(found.orders[ORDER]) == 100
    assert found.requests[REQUEST_ID].frozen_reason == "record_was_wrong"
    assert list(illegal_moves(book, found)) == []
    assert book_after(found, again)[0] == found


@pytest.mark.parametrize("said_s", [-3600, 3600])
def test_a_statement_without_a_sequence_overrules_an_earlier_word_that_the_order_is_lost(said_s: float) -> None:
    """By the broker's clock it may have been said an hour before the order was declared lost by the database's."""
    stated = a_statement(StatementKind.NEW, 1, 0)
    book = a_book(working(last_broker_update_at=at(5), statements=(stated,), broker_update_seq=1))
    points = evidence(
        book.orders[ORDER], asked(book.orders[ORDER]), known(denied=(5, at(10))), now=at(LATE), within=WITHIN
    )
    outcome = declare_lost(book, {ORDER: points}, reason="r", now=at(LATE), only=ORDER)
    assert isinstance(outcome, Done)
    update = an_update(ExecType.PENDING_CANCEL, seq=None, cum=None, transact_time=at(LATE + said_s))
    found, _ = book_after(outcome.book, update)
    assert exposure.exposure(found.orders[ORDER]) == 100


def test_an_acknowledged_order_is_lost_only_where_a_newer_word_of_the_broker_can_be_told() -> None:
    def stated(seq: int | None) -> Outcome:
        changes: dict[str, Any] = {"statements": (a_statement(StatementKind.NEW, seq, 0),), "broker_update_seq": seq}
        book = a_book(working(last_broker_update_at=at(5), **changes))
        points = evidence(
            book.orders[ORDER], asked(book.orders[ORDER]), known(denied=(5, at(10))), now=at(LATE), within=WITHIN
        )
        return declare_lost(book, {ORDER: points}, reason="r", now=at(LATE), only=ORDER)

    lost, overruled = stated(1), stated(None)
    assert isinstance(lost, Done)
    assert lost.book.orders[ORDER].status is OrderStatus.LOST
    assert isinstance(overruled, Refused)
    assert "have no sequence" in overruled.reasons[0]


def unproven(*orders: Order) -> Book:
    book = a_book(*orders, status=RequestStatus.FAILED, reason="submit_unknown")
    position = a_position(status=PositionStatus.CLOSE_FAILED, active_close_request_id=None, exposure_unproven=True)
    return replace(book, position=position)


def override(book: Book, tables: Known) -> Outcome:
    gathered = {
        name: evidence(order, asked(order), tables, now=at(LATE), within=WITHIN) for name, order in book.orders.items()
    }
    return declare_lost(book, gathered, reason="broker confirms", now=at(LATE))


def test_an_override_declares_every_order_lost_that_keeps_the_position_from_being_clear() -> None:
    outcome = override(unproven(unknown(), canceled(attempt=2)), known())
    assert isinstance(outcome, Done)
    position = outcome.book.position
    assert (position.status, position.exposure_unproven) == (PositionStatus.CLOSE_FAILED, False)
    assert sorted(one.status for one in outcome.book.orders.values()) == ["canceled", "lost"]
    assert isinstance(override(outcome.book, known()), Already)


def test_an_override_needs_the_evidence_of_each_order() -> None:
    both = unproven(unknown(), unknown(attempt=2, not_found_count=1))
    outcome = override(both, known())
    assert isinstance(outcome, Refused)
    assert [reason.split(":")[0] for reason in outcome.reasons] == [f"order {ORDER[:-1]}2"]
    assert isinstance(override(a_book(unknown()), known()), Refused), "an active close is not overridden"


def test_an_override_of_a_position_that_became_clear_frees_it() -> None:
    outcome = override(unproven(canceled(100, 0)), known())
    assert isinstance(outcome, Done)
    assert not outcome.book.position.exposure_unproven
