"""Whatever order the broker's updates arrive in, and however often, the state is the same; and long mirrors short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from closeflow.domain import facts, ledger
from closeflow.domain.model import (
    Book,
    BrokerStatus,
    BrokerUpdate,
    CloseRequest,
    ExecType,
    Order,
    Position,
    Side,
    UpdateSource,
)
from closeflow.domain.settle import settle
from closeflow.domain.transitions import illegal_moves

from .builders import POLICY, REQUEST_ID, a_book, a_trade, an_order, an_update, at, book_after

B, E = BrokerStatus, ExecType
QUANTITY = 100
FAST = settings(max_examples=25, deadline=None, database=None)


@dataclass(frozen=True)
class History:
    """What the broker did with one order, told in every way that it may be told; the order of telling is free."""

    updates: tuple[BrokerUpdate, ...]
    executed: int
    ended: bool


@st.composite
def histories(draw: st.DrawFn) -> History:
    fills = draw(st.lists(st.integers(1, 60), max_size=4).filter(lambda parts: sum(parts) <= QUANTITY))
    sequenced = draw(st.booleans())
    other_names = draw(st.booleans())
    told = [_update(sequenced, 1, E.NEW, B.NEW, 0)]
    cum = 0
    for n, part in enumerate(fills, 2):
        cum += part
        status = B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED
        stream = a_trade(f"s{n}", part, cum, order_status=status, seq=n if sequenced else None, transact_time=at(n))
        listed = a_trade(f"a{n}" if other_names else f"s{n}", part, cum, source=UpdateSource.BACKFILL)
        told += draw(st.sampled_from([[stream], [listed], [stream, listed]]))
        if draw(st.booleans()):
            told.append(_update(sequenced, n, E.ORDER_STATUS, status, cum, source=UpdateSource.QUERY))
    last = len(fills) + 2
    if draw(st.booleans()):
        pause = draw(st.sampled_from([B.SUSPENDED, B.PENDING_CANCEL]))
        told.append(_update(True, last, E(pause.value), pause, cum))
    if draw(st.booleans()):
        told.append(_update(True, last + 1, E.CANCEL_REJECTED, B.NEW if cum < QUANTITY else B.FILLED, cum))
    ended = cum < QUANTITY and draw(st.booleans())
    if ended:
        end = draw(st.sampled_from([B.CANCELED, B.EXPIRED]))
        told.append(_update(draw(st.booleans()), last + 2, E(end.value), end, cum))
    return History(tuple(told), cum, ended or cum == QUANTITY)


@st.composite
def reversed_histories(draw: st.DrawFn) -> History:
    """Fills, then a chain of corrections and busts of one of them; the order lives on, or is over with what is left."""
    fills = draw(st.lists(st.integers(1, 60), min_size=1, max_size=3).filter(lambda parts: sum(parts) <= QUANTITY))
    cum, told, names = 0, [_update(True, 1, E.NEW, B.NEW, 0)], []
    for n, part in enumerate(fills, 2):
        cum += part
        status = B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED
        stream = a_trade(f"s{n}", part, cum, order_status=status, seq=n, transact_time=at(10 * n))
        listed = a_trade(f"a{n}", part, cum, source=UpdateSource.BACKFILL, transact_time=at(10 * n))
        told += draw(st.sampled_from([[stream], [listed], [stream, listed]]))
        names.append([one.exec_id for one in told if one.transact_time == at(10 * n)])
    changed = draw(st.integers(0, len(fills) - 1))
    ref, stands = draw(st.sampled_from(names[changed])), fills[changed]
    over = draw(st.booleans())
    for step in range(draw(st.integers(1, 3))):
        bust = draw(st.booleans())
        now = 0 if bust else draw(st.integers(1, stands))
        cum, stands = cum - stands + now, now
        status = B.CANCELED if over else (B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED if cum else B.NEW)
        seq, kind = 10 + step, E.TRADE_CANCEL if bust else E.TRADE_CORRECT
        said = {"exec_id": f"x{step}", "exec_ref_id": ref, "order_quantity": Decimal(QUANTITY)}
        if not bust:
            said |= {"last_quantity": Decimal(now), "last_price": Decimal(9)}
        told.append(_update(True, seq, kind, status, cum, transact_time=at(10 * seq), **said))
        if bust:
            break
        ref = draw(st.sampled_from([ref, f"x{step}"]))
    return History(tuple(told), cum, over or cum == QUANTITY)


def _update(
    sequenced: bool, seq: int, exec_type: ExecType, status: BrokerStatus, cum: int, **changes: object
) -> BrokerUpdate:
    update = an_update(exec_type, status, cum=cum, seq=seq if sequenced else None, transact_time=at(seq))
    return replace(update, **changes)  # type: ignore[arg-type]


@st.composite
def tellings(draw: st.DrawFn) -> tuple[History, Sequence[BrokerUpdate]]:
    """A history, and its updates shuffled with some of them repeated."""
    history = draw(histories())
    repeated = draw(st.lists(st.sampled_from(history.updates), max_size=4))
    return history, draw(st.permutations([*history.updates, *repeated]))


def told(book: Book, updates: Sequence[BrokerUpdate]) -> Book:
    """Every update a batch of its own, so that everything is settled in between."""
    for update in updates:
        after, _ = book_after(book, update)
        assert list(illegal_moves(book, after)) == []
        book = after
    return book


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
        facts.is_done(order),
    )


def _request(request: CloseRequest) -> tuple[object, ...]:
    return (request.status, request.reason, request.filled_quantity, request.frozen_reason, request.next_attempt_at)


def _position(position: Position) -> tuple[object, ...]:
    return (position.status, position.quantity, position.active_close_request_id, position.exposure_unproven)


@FAST
@given(tellings(), st.booleans())
def test_any_order_and_any_repetition_of_the_updates_gives_the_same_state(
    telling: tuple[History, Sequence[BrokerUpdate]], cancelling: bool
) -> None:
    history, updates = telling
    book = a_book(an_order(cancel_requested_at=at(0) if cancelling else None))
    state = told(book, updates)
    assert essence(state) == essence(told(book, history.updates))
    order = state.orders_of(REQUEST_ID)[0]
    assert facts.executed(order) == history.executed
    assert facts.unattributed(order) == 0
    assert facts.is_done(order) is history.ended
    assert state.position.quantity == QUANTITY - history.executed
    again = settle(state, state, now=at(99), policy=POLICY)
    assert (again.book, again.events, again.incidents) == (state, (), ())
    assert essence(told(state, updates)) == essence(state)


@st.composite
def reversed_tellings(draw: st.DrawFn) -> tuple[History, Sequence[BrokerUpdate]]:
    history = draw(reversed_histories())
    repeated = draw(st.lists(st.sampled_from(history.updates), max_size=3))
    return history, draw(st.permutations([*history.updates, *repeated]))


def standing(book: Book) -> tuple[object, ...]:
    """What must agree after busts and corrections: whether the position was closed in between may differ, and with it
    the reason and the time that the request shows."""
    order, request, position = book.orders_of(REQUEST_ID)[0], book.requests[REQUEST_ID], book.position
    stands = sorted((one.quantity, one.price) for one in ledger.standings(order) if one.quantity)
    return (_facts(order)[:6], stands, request.status, request.filled_quantity, request.auto_retry, _position(position))


@FAST
@given(reversed_tellings())
def test_any_order_of_busts_and_corrections_gives_the_same_state(
    telling: tuple[History, Sequence[BrokerUpdate]],
) -> None:
    history, updates = telling
    state = told(a_book(an_order()), updates)
    assert standing(state) == standing(told(a_book(an_order()), history.updates))
    order = state.orders_of(REQUEST_ID)[0]
    assert facts.executed(order) == history.executed
    assert facts.unattributed(order) == 0
    assert facts.is_done(order) is history.ended
    assert state.position.quantity == QUANTITY - history.executed
    again = settle(state, state, now=at(99), policy=POLICY)
    assert (again.book, again.events, again.incidents) == (state, (), ())
    assert standing(told(state, updates)) == standing(state)


@FAST
@given(st.one_of(tellings(), reversed_tellings()))
def test_a_short_mirrors_a_long(telling: tuple[History, Sequence[BrokerUpdate]]) -> None:
    _, updates = telling
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
