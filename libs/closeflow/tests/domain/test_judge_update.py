"""What one broker update changes, given everything known about its order (lifecycle.md, R1-R4)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.model import (
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    Order,
    OrderStatus,
    RejectClass,
    SendAnswer,
    Side,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied, ProvesNothing, Quarantined, Repeated
from closeflow.domain.position.freeze import freeze

from .builders import (
    OTHER_ID,
    a_book,
    a_refusal,
    a_request,
    a_send,
    a_statement,
    a_trade,
    an_order,
    an_update,
    applied,
    at,
    canceled,
    filled,
    refused,
    working,
)

K, O, E, B = StatementKind, OrderStatus, ExecType, BrokerStatus  # noqa: E741
UNSENT = an_order(sends=())


def of(order: Order, update: BrokerUpdate) -> Applied:
    verdict = judge_update(order, update)
    assert isinstance(verdict, Applied), verdict
    return verdict


def kinds(verdict: Applied) -> list[str]:
    return [incident.kind for incident in verdict.incidents]


# Executions: R3a


LATE: dict[str, Order] = {
    "of a planned order": an_order(),
    "of an order of unknown fate": an_order(status=O.SUBMIT_UNKNOWN),
    "of a working order whose sequence is far ahead": working(statements=(a_statement(K.NEW, 999, 0),)),
    "of a canceled order": canceled(),
    "of an expired order": an_order(statements=(a_statement(K.EXPIRED, 9, 0),)),
    "of a filled order": filled(),
    "of a refused order": refused(),
    "of a denied order": an_order(status=O.DENIED, sends=()),
}


@pytest.mark.parametrize("order", LATE.values(), ids=LATE.keys())
def test_an_execution_id_not_seen_before_is_always_applied(order: Order) -> None:
    verdict = of(order, a_trade("late", 30, 30, seq=5))
    assert verdict.execution is not None
    assert verdict.execution.exec_id == "late"
    assert verdict.order.executed_quantity == order.executed_quantity + 30


def test_an_execution_is_told_everything_that_accounting_needs() -> None:
    execution = of(working(), a_trade("e", 30, 30, seq=5)).execution
    assert execution is not None
    assert (execution.quantity, execution.price, execution.cum_quantity) == (Decimal(30), Decimal(10), Decimal(30))
    assert (execution.side, execution.broker_seq, execution.occurred_at) == (Side.SELL, 5, at(2))


def test_the_same_execution_again_changes_nothing() -> None:
    trade = a_trade("e", 30, 30, seq=5)
    assert judge_update(applied(working(), trade), trade) == Repeated()


def test_the_same_execution_id_with_other_content_keeps_the_first_and_freezes() -> None:
    order = applied(working(), a_trade("e", 30, 30, seq=5))
    verdict = of(order, a_trade("e", 29, 30, seq=5, event_id=OTHER_ID))
    assert verdict.execution is None
    assert order_status.executed(verdict.order) == 30
    assert kinds(verdict) == ["execution_changed"]
    book = apply_update(a_book(order), order, verdict)
    assert book.requests[a_request().id].frozen_reason == "execution_changed"


STREAMED = a_trade("stream-1", 30, 30, seq=5, order_status=B.PARTIALLY_FILLED)
LISTED = a_trade("activity-1", 30, 30, source=UpdateSource.BACKFILL)


@pytest.mark.parametrize(
    ("first", "second"), [(STREAMED, LISTED), (LISTED, STREAMED)], ids=["stream, then list", "list, then stream"]
)
def test_one_fill_under_two_names_is_one_execution(first: BrokerUpdate, second: BrokerUpdate) -> None:
    order = applied(working(), first)
    verdict = of(order, second)
    assert verdict.execution is None
    assert order_status.executed(verdict.order) == 30
    assert verdict.order.aliases == {second.exec_id: first.exec_id}
    assert judge_update(verdict.order, second) == Repeated()
    assert judge_update(verdict.order, first) == Repeated()


TWO_FILLS: dict[str, BrokerUpdate] = {
    "another cumulative quantity": a_trade("activity-1", 30, 60, source=UpdateSource.BACKFILL),
    "another quantity": a_trade("activity-1", 20, 50, source=UpdateSource.BACKFILL),
    "another price": a_trade("activity-1", 30, 60, source=UpdateSource.BACKFILL, last_price=Decimal("10.01")),
    "the same feed": a_trade("stream-2", 30, 30, seq=6),
}


@pytest.mark.parametrize("second", TWO_FILLS.values(), ids=TWO_FILLS.keys())
def test_fills_that_differ_are_two_executions(second: BrokerUpdate) -> None:
    verdict = of(applied(working(), STREAMED), second)
    assert verdict.execution is not None
    assert not verdict.order.aliases


def test_one_execution_has_one_alias_from_the_other_feed() -> None:
    order = applied(working(), STREAMED, LISTED)
    assert of(order, replace(LISTED, exec_id="activity-2")).execution is not None


def test_a_fill_whose_snapshot_is_from_before_it_is_booked() -> None:
    order = applied(working(), a_trade("e1", 30, 0, seq=5), a_trade("e2", 20, 0, seq=6, transact_time=at(4)))
    assert order_status.executed(order) == 50


def test_a_trade_without_an_execution_id_is_a_gap_and_never_a_fill() -> None:
    verdict = of(working(), an_update(E.TRADE, cum=40, last=40, last_price=Decimal(10), seq=5))
    assert verdict.execution is None
    assert order_status.unattributed(verdict.order) == 40
    assert order_status.executed(verdict.order) == 0


def test_the_named_fill_closes_the_gap() -> None:
    order = applied(working(), an_update(E.ORDER_STATUS, B.PARTIALLY_FILLED, cum=40, seq=5), a_trade("e", 40, 40))
    assert order_status.unattributed(order) == 0


# Statements


def test_a_statement_makes_the_order_the_brokers() -> None:
    order = of(an_order(next_send_at=at(1)), an_update(E.NEW, B.NEW, cum=0, seq=7)).order
    assert (order.status, order.broker_order_id, order.broker_update_seq) == (O.NEW, "b-1", 7)
    assert (order.next_send_at, order.last_broker_update_at) == (None, at(3))


def test_the_sequence_never_goes_back() -> None:
    order = applied(an_order(), an_update(E.NEW, B.PENDING_CANCEL, cum=0, seq=7), an_update(E.NEW, B.NEW, cum=0, seq=3))
    assert order.broker_update_seq == 7


@pytest.mark.parametrize("seqs", [(5, 6), (6, 5)])
def test_of_two_statements_of_one_kind_the_higher_sequence_counts(seqs: tuple[int, int]) -> None:
    order = applied(an_order(), *(an_update(E.NEW, B.NEW, cum=seq, seq=seq) for seq in seqs))
    assert [(one.broker_seq, one.cum_quantity) for one in order.statements] == [(6, Decimal(6))]


def test_the_quantity_of_an_older_statement_still_counts() -> None:
    order = applied(an_order(), an_update(E.NEW, B.NEW, cum=0, seq=6), an_update(E.NEW, B.NEW, cum=20, seq=5))
    assert order_status.known_cum(order) == 20


def test_a_terminal_statement_that_lacks_its_quantity_gets_it_from_a_query() -> None:
    order = applied(working(), an_update(E.CANCELED, B.CANCELED, seq=9))
    assert not order_status.is_done(order)
    assert order_status.is_done(applied(order, an_update(E.ORDER_STATUS, B.CANCELED, cum=0, seq=9)))


@pytest.mark.parametrize("exec_type", [E.NEW, E.CANCELED, E.EXPIRED, E.SUSPENDED, E.DONE_FOR_DAY, E.PENDING_CANCEL])
def test_without_an_order_status_the_kind_of_report_is_the_statement(exec_type: ExecType) -> None:
    assert [one.kind.value for one in of(an_order(), an_update(exec_type, cum=0)).order.statements] == [exec_type.value]


def test_a_refused_cancel_is_kept_by_its_type_not_by_the_orders_status() -> None:
    order = applied(working(cancel_requested_at=at(0)), an_update(E.CANCEL_REJECTED, B.NEW, cum=0, seq=3))
    assert order.status is O.NEW
    assert order_status.statement(order, K.CANCEL_REJECTED) is not None


def test_the_code_of_a_refused_cancel_is_not_the_orders() -> None:
    update = an_update(
        E.CANCEL_REJECTED, B.NEW, cum=0, seq=3, reject_code="42210000", reject_class=RejectClass.TERMINAL
    )
    order = applied(working(), update)
    assert (order.reject_code, order.reject_class) == (None, None)


def test_a_status_that_nobody_knows_is_kept_as_a_live_order() -> None:
    verdict = of(an_order(), an_update(E.ORDER_STATUS, cum=40, seq=5, reason="'shelved' is not known"))
    assert (verdict.order.status, order_status.unattributed(verdict.order)) == (O.PARTIALLY_FILLED, Decimal(40))
    assert kinds(verdict) == ["unknown_broker_status"]


# Refusals: R3b

FIRST_SENDS: dict[str, Order] = {
    "not answered yet": an_order(sends=(a_send(None),)),
    "answered rejected": an_order(sends=(a_send(SendAnswer.REJECTED),)),
    "after one that was never written": an_order(sends=(a_send(SendAnswer.NOT_SENT), a_send(None, 2))),
    "after one that was not accepted": an_order(sends=(a_send(SendAnswer.NOT_ACCEPTED), a_send(None, 2))),
}


@pytest.mark.parametrize("order", FIRST_SENDS.values(), ids=FIRST_SENDS.keys())
def test_a_refusal_of_the_only_send_that_counts_rejects(order: Order) -> None:
    verdict = of(order, a_refusal(reject_class=RejectClass.RETRYABLE))
    assert (verdict.order.status, verdict.order.reject_class) == (O.REJECTED, RejectClass.RETRYABLE)
    assert order_status.is_done(verdict.order)
    assert verdict.incidents == ()


NO_PROOF: dict[str, Order] = {
    "on a repeated send": an_order(sends=(a_send(SendAnswer.UNKNOWN), a_send(SendAnswer.REJECTED, 2))),
    "on a send repeated while the first is unanswered": an_order(sends=(a_send(None), a_send(None, 2))),
    "without a send": UNSENT,
    "with only a send that was never written": an_order(sends=(a_send(SendAnswer.NOT_SENT),)),
    "after a broker's statement": working(),
    "after an execution": applied(an_order(), a_trade("e", 30, 30)),
}


@pytest.mark.parametrize("order", NO_PROOF.values(), ids=NO_PROOF.keys())
def test_a_refusal_proves_nothing(order: Order) -> None:
    assert judge_update(order, a_refusal(reject_class=RejectClass.TERMINAL)) == ProvesNothing()


def test_an_unmapped_refusal_is_terminal_and_opens_an_incident() -> None:
    verdict = of(an_order(sends=(a_send(None),)), a_refusal())
    assert verdict.order.reject_class is RejectClass.TERMINAL
    assert kinds(verdict) == ["unmapped_refusal"]


def test_an_unmapped_rejection_on_the_stream_is_terminal_and_opens_one_incident() -> None:
    verdict = of(working(), an_update(E.REJECTED, B.REJECTED, cum=0, seq=5, reason="no"))
    assert (verdict.order.status, verdict.order.reject_class) == (O.REJECTED, RejectClass.TERMINAL)
    assert kinds(verdict) == ["unmapped_refusal"]
    assert kinds(of(verdict.order, an_update(E.ORDER_STATUS, B.REJECTED, cum=0, seq=6))) == []


def test_a_repeated_refusal_changes_nothing() -> None:
    assert judge_update(refused(sends=(a_send(None),)), a_refusal()) == Repeated()


@pytest.mark.parametrize("exec_type", [E.NOT_FOUND, E.ABSENT])
def test_not_found_is_no_fact(exec_type: ExecType) -> None:
    assert judge_update(an_order(), an_update(exec_type, broker_order_id=None)) == ProvesNothing()


def test_what_is_stated_without_a_broker_order_id_proves_nothing() -> None:
    assert judge_update(an_order(), an_update(E.CANCELED, B.CANCELED, cum=0, broker_order_id=None)) == ProvesNothing()


# Contradictions

QUARANTINED: dict[str, tuple[BrokerUpdate, str]] = {
    "another symbol": (an_update(E.NEW, B.NEW, symbol="MSFT"), "contradicts_order"),
    "the other side": (an_update(E.NEW, B.NEW, side=Side.BUY), "contradicts_order"),
    "another account": (an_update(E.NEW, B.NEW, account_id="PA9"), "contradicts_order"),
    "another broker order id": (an_update(E.NEW, B.NEW, broker_order_id="b-2"), "contradicts_order"),
    "another quantity": (an_update(E.NEW, B.NEW, order_quantity=Decimal(99)), "contradicts_order"),
    "cum and leaves that are not the quantity": (an_update(E.NEW, B.NEW, cum=10, leaves=80), "quantities_disagree"),
    "an execution without a broker order id": (a_trade("e", 30, 30, broker_order_id=None), "execution_without_order"),
    "a bust without a broker order id": (
        an_update(E.TRADE_CANCEL, B.NEW, exec_id="x", exec_ref_id="e", broker_order_id=None),
        "execution_without_order",
    ),
}


@pytest.mark.parametrize(("update", "error"), QUARANTINED.values(), ids=QUARANTINED.keys())
def test_a_contradiction_is_quarantined(update: BrokerUpdate, error: str) -> None:
    verdict = judge_update(working(broker_order_id="b-1"), update)
    assert isinstance(verdict, Quarantined)
    assert verdict.error == error


def test_an_execution_that_is_booked_on_another_order_is_quarantined() -> None:
    verdict = judge_update(working(), a_trade("e", 30, 30), taken_by="cf-other-1")
    assert isinstance(verdict, Quarantined)
    assert isinstance(judge_update(working(), a_trade("e", 30, 30), taken_by=working().client_order_id), Applied)


INCIDENTS: dict[str, tuple[Order, BrokerUpdate, str]] = {
    "a denied order that the broker has": (
        an_order(status=O.DENIED, sends=()),
        an_update(E.NEW, B.NEW, cum=0),
        "record_was_wrong",
    ),
    "a refused order that the broker has": (refused(), an_update(E.NEW, B.NEW, cum=0), "record_was_wrong"),
    "a fill of a rejected order": (
        an_order(statements=(a_statement(K.REJECTED, 9, 0),), reject_class=RejectClass.TERMINAL),
        a_trade("e", 30, 30),
        "record_was_wrong",
    ),
    "a rejection of a filled order": (
        working(done=30, reject_class=RejectClass.TERMINAL),
        an_update(E.REJECTED, B.REJECTED, cum=0, seq=9),
        "record_was_wrong",
    ),
    "a canceled order that lives again": (canceled(), an_update(E.NEW, B.NEW, cum=0, seq=10), "record_was_wrong"),
    "the same seen the other way round": (
        working(statements=(a_statement(K.NEW, 10, 0),)),
        an_update(E.CANCELED, B.CANCELED, cum=0, seq=9),
        "record_was_wrong",
    ),
    "a replaced order": (working(), an_update(E.REPLACED, B.REPLACED, cum=0, seq=5), "order_replaced"),
}


@pytest.mark.parametrize(("order", "update", "kind"), INCIDENTS.values(), ids=INCIDENTS.keys())
def test_what_should_not_be_is_kept_with_an_incident_and_freezes(order: Order, update: BrokerUpdate, kind: str) -> None:
    verdict = of(order, update)
    assert kinds(verdict) == [kind]
    frozen = apply_update(a_book(order), order, verdict).requests[order.close_request_id]
    assert frozen.frozen_reason == kind


def test_an_overfill_is_applied_with_an_incident() -> None:
    verdict = of(filled(), a_trade("more", 10, 110, seq=10))
    assert (verdict.order.status, verdict.order.executed_quantity) == (O.FILLED, Decimal(110))
    assert kinds(verdict) == ["overfill"]


def test_a_late_fill_of_a_canceled_order_is_nothing_to_worry_about() -> None:
    assert kinds(of(canceled(), a_trade("late", 30, 30, seq=8))) == []
    assert kinds(of(canceled(), a_trade("late", 30, 30, seq=10, order_status=B.CANCELED))) == []


# The book


def test_an_execution_moves_the_ledger_by_its_sign() -> None:
    order = working()
    book = a_book(order)
    assert apply_update(book, order, of(order, a_trade("e", 30, 30))).ledger_quantity == 70
    short = replace(order, side=Side.BUY)
    assert apply_update(book, short, of(short, a_trade("e", 30, 30, side=Side.BUY))).ledger_quantity == 130


def test_the_first_reason_to_freeze_stays() -> None:
    order = working()
    book = freeze(freeze(a_book(order), order, "first"), order, "second")
    assert book.requests[order.close_request_id].frozen_reason == "first"


def test_an_order_whose_request_is_not_in_the_book_freezes_nothing() -> None:
    order = working(request_id=OTHER_ID)
    assert freeze(a_book(order), order, "reason") == a_book(order)
