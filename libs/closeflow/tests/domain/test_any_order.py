"""Whatever order the broker's updates arrive in, and however often, the state is the same; and long mirrors short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.close.outcome import conclude
from closeflow.domain.model import Book, BrokerUpdate, CloseRequest, Order, Position, Side, UpdateSource
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied
from closeflow.domain.transitions import illegal_moves

from .builders import NOW, POLICY, REQUEST_ID, a_book, an_order, at
from .histories import (
    QUANTITY,
    History,
    Telling,
    crossed_reversals,
    histories,
    reversed_histories,
    tellings,
    unsteady_histories,
)

FAST = settings(max_examples=40, deadline=None, database=None)
CROSSED = crossed_reversals()


def told(book: Book, updates: Sequence[BrokerUpdate], sizes: Sequence[int] = ()) -> Book:
    """The book after the updates, concluded after each batch; every update is a batch unless `sizes` say else."""
    rest, left = list(updates), list(sizes)
    while rest:
        size = left.pop(0) if left else 1
        after = book
        for update in rest[:size]:
            order = after.orders[update.client_order_id]
            verdict = judge_update(order, update)
            after = apply_update(after, order, verdict) if isinstance(verdict, Applied) else after
        after = conclude(book, after, now=NOW, policy=POLICY).book
        assert list(illegal_moves(book, after)) == []
        book, rest = after, rest[size:]
    return book


def listed(history: History, book: Book) -> Book:
    """The book after the broker's list was read too. Until then what the other feed may have told already waits."""
    order = book.orders_of(REQUEST_ID)[0]
    assert order_status.executed(order) <= history.executed
    return told(book, history.listed)


def essence(book: Book) -> tuple[object, ...]:
    """What must agree: of a fill that two feeds name, which name came first may differ, and so may the version."""
    order, request, position = book.orders_of(REQUEST_ID)[0], book.requests[REQUEST_ID], book.position
    fills = sorted((one.cum_quantity, one.quantity, one.price) for one in order.executions)
    return _facts(order), fills, _request(request), _position(position), book.ledger_quantity


def _facts(order: Order) -> tuple[object, ...]:
    return (
        order.status,
        order.broker_order_id,
        order.broker_update_seq,
        order.executed_quantity,
        order.stated_cum_quantity,
        order.average_price,
        order.statements,
        order_status.is_done(order),
    )


def _request(request: CloseRequest) -> tuple[object, ...]:
    return (request.status, request.reason, request.filled_quantity, request.frozen_reason, request.next_attempt_at)


def _position(position: Position) -> tuple[object, ...]:
    return (position.status, position.quantity, position.active_close_request_id, position.exposure_unproven)


@FAST
@given(tellings(histories()), st.booleans())
def test_any_order_and_any_repetition_of_the_updates_gives_the_same_state(telling: Telling, cancelling: bool) -> None:
    history, updates, sizes = telling
    book = a_book(an_order(cancel_requested_at=at(0) if cancelling else None))
    state = listed(history, told(book, updates, sizes))
    assert essence(state) == essence(listed(history, told(book, history.updates)))
    _check_agrees(history, state)
    assert essence(told(state, updates)) == essence(state)


def _check_agrees(history: History, state: Book) -> None:
    """The state says what the broker did, and settling it again changes nothing."""
    order = state.orders_of(REQUEST_ID)[0]
    assert order_status.executed(order) == history.executed
    assert order_status.unattributed(order) == 0
    assert order_status.is_done(order) is history.ended
    assert state.position.quantity == QUANTITY - history.executed
    again = conclude(state, state, now=at(99), policy=POLICY)
    assert (again.book, again.events, again.incidents) == (state, (), ())


@FAST
@given(tellings(histories()))
def test_activities_without_a_cumulative_quantity_never_book_a_fill_twice(telling: Telling) -> None:
    history, updates, _ = telling
    order, kinds = an_order(), set[str]()
    for update in updates:
        if update.exec_id is not None and update.source is UpdateSource.BACKFILL:
            update = replace(update, cum_quantity=None, transact_time=at(int(update.exec_id[1:])))
        verdict = judge_update(order, update)
        if isinstance(verdict, Applied):
            order, kinds = verdict.order, kinds | {one.kind for one in verdict.incidents}
    assert order_status.executed(order) <= history.executed
    assert "executed_above_stated" not in kinds


def standing(book: Book) -> tuple[object, ...]:
    """What must agree after busts and corrections: whether the position was closed in between may differ, and with it
    the reason and the time that the request shows."""
    order, request, position = book.orders_of(REQUEST_ID)[0], book.requests[REQUEST_ID], book.position
    stands = sorted((one.quantity, one.price) for one in execution_ledger.effective_executions(order) if one.quantity)
    return (_facts(order)[:6], stands, request.status, request.filled_quantity, request.auto_retry, _position(position))


@FAST
@given(tellings(reversed_histories()))
def test_any_order_of_busts_and_corrections_gives_the_same_state(telling: Telling) -> None:
    _check_reversed(telling)


@pytest.mark.parametrize("name", CROSSED)
def test_reversals_that_cross_each_other_give_the_same_state(name: str) -> None:
    _check_reversed(CROSSED[name])


def _check_reversed(telling: Telling) -> None:
    history, updates, sizes = telling
    state = told(told(a_book(an_order()), updates, sizes), history.listed)
    assert standing(state) == standing(told(told(a_book(an_order()), history.updates), history.listed))
    _check_agrees(history, state)
    assert standing(told(state, updates)) == standing(state)


@FAST
@given(tellings(unsteady_histories()))
def test_a_snapshot_of_another_moment_books_no_fill_twice(telling: Telling) -> None:
    history, updates, sizes = telling
    order = an_order()
    for update in updates:
        verdict = judge_update(order, update)
        if isinstance(verdict, Applied):
            assert [one.kind for one in verdict.incidents] == []
            order = verdict.order
        assert order_status.executed(order) <= history.executed
    state = listed(history, told(a_book(an_order()), updates, sizes))
    _check_agrees(history, state)
    order = state.orders_of(REQUEST_ID)[0]
    assert state.requests[REQUEST_ID].frozen_reason is None
    figures = sorted((one.last_quantity, one.last_price) for one in history.listed)
    assert sorted((one.quantity, one.price) for one in order.executions) == figures
    assert order.withheld == ()


@FAST
@given(tellings(st.one_of(histories(), reversed_histories())))
def test_a_short_mirrors_a_long(telling: Telling) -> None:
    _, updates, _ = telling
    long = a_book(an_order())
    position = replace(long.position, quantity=Decimal(-QUANTITY), opening_quantity=Decimal(-QUANTITY))
    request = replace(long.requests[REQUEST_ID], side=Side.BUY)
    short = a_book(an_order(side=Side.BUY), position=position, requests=[request])
    sold = told(long, updates)
    bought = told(short, [replace(update, side=Side.BUY) for update in updates])
    assert bought.position.quantity == -sold.position.quantity
    assert bought.ledger_quantity == -sold.ledger_quantity
    assert _facts(bought.orders_of(REQUEST_ID)[0]) == _facts(sold.orders_of(REQUEST_ID)[0])
    assert _request(bought.requests[REQUEST_ID]) == _request(sold.requests[REQUEST_ID])
    assert bought.position.status is sold.position.status
    assert bought.position.closed_at == sold.position.closed_at
