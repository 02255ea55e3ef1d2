"""Whether a close is accepted: every answer of the contract, and the order of the checks."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

import pytest

from closeflow.contracts.outbox import event_value
from closeflow.domain.close.accept import (
    Accepted,
    AlreadyClosing,
    Decision,
    ExpectationFailed,
    ExposureUnproven,
    FieldInvalid,
    KeyReused,
    NotFound,
    PositionClosed,
    Replayed,
    TradingHalted,
    ZeroQuantity,
    accept_close,
)
from closeflow.domain.model import (
    AssetType,
    Book,
    CloseRequest,
    Order,
    OrderStatus,
    OrderType,
    PositionStatus,
    RequestStatus,
    Side,
    Statement,
    StatementKind,
    TimeInForce,
    Topic,
)
from closeflow.domain.trading_controls import TradingState
from closeflow.domain.transitions import illegal_moves

from .accepting import ACTIVE, FIRST, NOW, SECOND, accepted, book, command, order, request_of


def test_an_accepted_close_moves_the_position_and_asks_for_the_first_attempt() -> None:
    found = accepted(accept_close(book(), command(), None, trading=ACTIVE, now=NOW))
    assert (found.request.status, found.request.attempt) == (RequestStatus.PENDING, 1)
    assert (found.request.target_quantity, found.request.filled_quantity) == (Decimal(10), Decimal(0))
    assert (found.request.working_timeout_s, found.request.max_retries) == (60, 3)
    position = found.book.position
    assert (position.status, position.active_close_request_id) == (PositionStatus.CLOSING, FIRST)
    assert position.version == 5
    assert [event.event_type for event in found.events] == ["SUBMIT_CLOSE_ORDER", "POSITION_CLOSING"]
    assert [event.topic for event in found.events] == [Topic.SUBMIT_ORDER, Topic.POSITION_EVENTS]
    assert {event.key for event in found.events} == {"7"}
    assert event_value(found.events[0])["quantity"] == "10"
    assert found.events[1].position_version == 5
    assert not list(illegal_moves(book(), found.book))


def test_a_failed_close_may_be_followed_by_a_new_one_once_it_is_clear() -> None:
    before = book("6", PositionStatus.CLOSE_FAILED)
    found = accepted(accept_close(before, command(), None, trading=ACTIVE, now=NOW))
    assert found.request.target_quantity == 6
    assert not list(illegal_moves(before, found.book))


@pytest.mark.parametrize(
    ("quantity", "asset_type", "side", "target", "time_in_force"),
    [
        ("10", AssetType.STOCK, Side.SELL, "10", TimeInForce.DAY),
        ("0.5", AssetType.STOCK, Side.SELL, "0.5", TimeInForce.DAY),
        ("-3", AssetType.OPTION, Side.BUY, "3", TimeInForce.DAY),
        ("-0.123456789", AssetType.CRYPTO, Side.BUY, "0.123456789", TimeInForce.GTC),
    ],
)
def test_side_target_and_time_in_force_follow_from_the_position(
    quantity: str, asset_type: AssetType, side: Side, target: str, time_in_force: TimeInForce
) -> None:
    made = request_of(command(), book(quantity, asset_type=asset_type))
    assert (made.side, made.target_quantity, made.time_in_force) == (side, Decimal(target), time_in_force)


def test_what_the_caller_asked_for_is_kept() -> None:
    made = request_of(command("4", limit_price=Decimal("1.5"), order_type=OrderType.LIMIT))
    assert (made.target_quantity, made.limit_price, made.requested_by) == (Decimal(4), Decimal("1.5"), "desk")
    assert made.traceparent == "00-aa-bb-01"


@pytest.mark.parametrize(
    ("asset_type", "quantity"),
    [
        (AssetType.STOCK, "10.5"),
        (AssetType.STOCK, "0"),
        (AssetType.STOCK, "-1"),
        (AssetType.STOCK, "NaN"),
        (AssetType.STOCK, "Infinity"),
        (AssetType.STOCK, "0.1234567891"),
        (AssetType.OPTION, "1.5"),
        (AssetType.CRYPTO, "0.1234567891"),
        (AssetType.CRYPTO, "999999999999999.123456789123456789"),
    ],
)
def test_a_quantity_outside_the_position_or_off_the_lot_is_refused(asset_type: AssetType, quantity: str) -> None:
    found = accept_close(book(asset_type=asset_type), command(quantity), None, trading=ACTIVE, now=NOW)
    assert isinstance(found, FieldInvalid)


@pytest.mark.parametrize(
    ("asset_type", "quantity"),
    [
        (AssetType.STOCK, "0.123456789"),
        (AssetType.OPTION, "3.000"),
        (AssetType.CRYPTO, "1E-9"),
        (AssetType.STOCK, "1E+1"),
    ],
)
def test_a_quantity_on_the_lot_is_accepted_however_it_is_written(asset_type: AssetType, quantity: str) -> None:
    assert request_of(command(quantity), book(asset_type=asset_type)).target_quantity == Decimal(quantity)


def test_a_position_that_is_not_there_not_mine_or_of_another_type_is_the_same_answer() -> None:
    nothing = NotFound(7)
    assert accept_close(None, command(), None, trading=ACTIVE, now=NOW) == nothing
    assert accept_close(book(), command(accounts=frozenset({"OTHER"})), None, trading=ACTIVE, now=NOW) == nothing
    assert accept_close(book(), command(only=AssetType.OPTION), None, trading=ACTIVE, now=NOW) == nothing
    assert isinstance(
        accept_close(book(), command(accounts=frozenset({"ACC"})), None, trading=ACTIVE, now=NOW), Accepted
    )
    option = book(asset_type=AssetType.OPTION)
    assert isinstance(accept_close(option, command(only=AssetType.OPTION), None, trading=ACTIVE, now=NOW), Accepted)


HALTED: Final = TradingState.HALTED
ALL_WRONG: Final = book("0", PositionStatus.CLOSED, active=SECOND, exposure_unproven=True)


def test_the_checks_come_in_the_contracts_order() -> None:
    """Each state is wrong in every later way too, so the first check must be the one that answers."""
    first = request_of(command())
    asking = command("99")

    def answer(before: Book, existing: CloseRequest | None = None, trading: TradingState = ACTIVE) -> type[Decision]:
        return type(accept_close(before, asking, existing, trading=trading, now=NOW))

    zero = replace(ALL_WRONG, position=replace(ALL_WRONG.position, status=PositionStatus.CLOSE_RETRYABLE))
    active = replace(zero, position=replace(zero.position, quantity=Decimal(10)))
    unproven = book(status=PositionStatus.CLOSE_FAILED, exposure_unproven=True)
    assert answer(ALL_WRONG, first, HALTED) is KeyReused
    assert answer(ALL_WRONG, trading=HALTED) is TradingHalted
    assert answer(ALL_WRONG) is PositionClosed
    assert answer(zero) is ZeroQuantity
    assert answer(active) is AlreadyClosing
    assert answer(unproven) is ExposureUnproven
    asking = command("99", expected_quantity=Decimal(99))
    assert answer(book()) is ExpectationFailed
    asking = command("99")
    assert answer(book()) is FieldInvalid


@pytest.mark.parametrize("before", [ALL_WRONG, book(status=PositionStatus.CLOSING, active=FIRST)])
def test_a_repeated_key_gets_its_first_answer_whatever_the_position_is_now(before: Book) -> None:
    first = replace(request_of(command()), status=RequestStatus.FAILED)
    replayed = Replayed(before.position, first)
    for trading in TradingState:
        assert accept_close(before, command(request_id=SECOND), first, trading=trading, now=NOW) == replayed


def test_a_halt_accepts_nothing_and_tells_nothing_of_foreign_positions() -> None:
    assert accept_close(book(), command(), None, trading=HALTED, now=NOW) == TradingHalted(7)
    foreign = command(accounts=frozenset({"OTHER"}))
    assert accept_close(book(), foreign, None, trading=HALTED, now=NOW) == NotFound(7)


def test_a_close_is_accepted_while_only_reducing_is_allowed() -> None:
    assert isinstance(accept_close(book(), command(), None, trading=TradingState.REDUCING, now=NOW), Accepted)


def test_the_key_of_a_foreign_position_tells_nothing() -> None:
    found = accept_close(book(), command(accounts=frozenset()), request_of(command()), trading=ACTIVE, now=NOW)
    assert found == NotFound(7)


@pytest.mark.parametrize("status", [PositionStatus.CLOSING, PositionStatus.CLOSE_RETRYABLE])
def test_an_active_close_keeps_other_keys_out(status: PositionStatus) -> None:
    found = accept_close(book(status=status, active=SECOND), command(), None, trading=ACTIVE, now=NOW)
    assert found == AlreadyClosing(7, SECOND)


def test_an_unfinished_request_keeps_others_out_even_when_the_position_has_lost_its_id() -> None:
    unfinished = replace(request_of(command()), id=SECOND)
    before = replace(book(), requests={SECOND: unfinished})
    assert accept_close(before, command(), None, trading=ACTIVE, now=NOW) == AlreadyClosing(7, SECOND)
    orphaned = book(status=PositionStatus.CLOSING)
    assert accept_close(orphaned, command(), None, trading=ACTIVE, now=NOW) == AlreadyClosing(7, None)


@pytest.mark.parametrize("status", [PositionStatus.OPEN, PositionStatus.CLOSE_FAILED])
@pytest.mark.parametrize(
    "left",
    [
        order(OrderStatus.SUBMIT_UNKNOWN),
        order(OrderStatus.CANCELED, Statement(kind=StatementKind.CANCELED, stated_at=NOW, source="stream")),
        order(
            OrderStatus.CANCELED,
            Statement(kind=StatementKind.CANCELED, stated_at=NOW, source="stream", cum_quantity=Decimal(2)),
            stated="2",
        ),
    ],
)
def test_an_order_that_may_still_fill_or_has_a_gap_forbids_a_new_close(status: PositionStatus, left: Order) -> None:
    before = book("10", status, AssetType.STOCK, left)
    assert accept_close(before, command(), None, trading=ACTIVE, now=NOW) == ExposureUnproven(7)


def test_an_overfill_whose_incident_is_open_is_not_closed() -> None:
    assert accept_close(replace(book(), disputed=True), command(), None, trading=ACTIVE, now=NOW) == ExposureUnproven(7)


def test_the_second_close_in_a_fold_sees_the_first() -> None:
    first = accepted(accept_close(book(), command(), None, trading=ACTIVE, now=NOW))
    other = accept_close(first.book, command(request_id=SECOND, idempotency_key="other"), None, trading=ACTIVE, now=NOW)
    assert other == AlreadyClosing(7, FIRST)
    again = accept_close(first.book, command(request_id=SECOND), first.request, trading=ACTIVE, now=NOW)
    assert again == Replayed(first.book.position, first.request)
