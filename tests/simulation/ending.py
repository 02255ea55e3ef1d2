"""What must hold once everything is mended and nothing moves any more: everything ended, and everybody agrees."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from closeflow.contracts.outbox import event_value
from closeflow.domain.lots import is_residual
from closeflow.domain.model import (
    ZERO,
    Book,
    CloseRequest,
    Order,
    OrderStatus,
    Position,
    PositionStatus,
    RequestStatus,
    Topic,
)
from closeflow.domain.reasons import EXTERNALLY_CLOSED, REVERSED
from closeflow.domain.text import decimal_text
from tests.simulation.audit import published
from tests.simulation.broker import LIVE
from tests.simulation.counting import entered, filled, known, over, standing, told_to_accounting
from tests.simulation.database import Database
from tests.simulation.faults import Fault
from tests.simulation.invariants import check
from tests.simulation.world import World

UNEXPECTED = frozenset(
    {
        "record_was_wrong",
        "executed_above_stated",
        "execution_changed",
        "order_replaced",
        "overfill",
        "unknown_order",
        "foreign_order",
        "contradicts_order",
        "execution_of_another_order",
        "quantities_disagree",
        "execution_without_order",
        "side_changed",
        "position_changed_outside",
        "submit_order_disagrees",
        "target_reached_with_live_order",
        "exposure_above_owed",
        "acknowledged_order_not_found",
        "unknown_broker_status",
    }
)
"""Incidents that say that a record contradicts another: with a broker that lies to nobody, a defect of ours."""

TAKEN_FOR_TOO_MUCH = frozenset(
    {"executed_above_stated", "overfill", "exposure_above_owed", "target_reached_with_live_order"}
)
"""Those that come about where what took a fill back arrives later than the fill that took its place."""
EXCUSES: Final[Mapping[RequestStatus, frozenset[str]]] = {
    RequestStatus.RETRYABLE: frozenset({"retry_by_hand", "position_reopened"}),
}
"""Which open incident says who has to act on a request that is not over (invariant 13)."""


def check_ended(world: World) -> None:
    unexpected = world.database.raised & UNEXPECTED
    if world.exchange.reversed:
        unexpected -= TAKEN_FOR_TOO_MUCH
    if world.faults.seen[Fault.NOT_VISIBLE]:
        unexpected -= {"acknowledged_order_not_found"}  # A clock that jumps makes an order quiet before it is visible.
    check(not unexpected, "a broker that does not lie", f"incidents {sorted(unexpected)}")
    for book in world.database.books.values():
        _check_agrees(world, book)
        _check_position(book)
    _check_not_stuck(world)
    _check_promises(world)
    _check_published(world)
    _check_accounting(world)


def _check_agrees(world: World, book: Book) -> None:
    """11 and 16: what we have booked is what the broker did, fill by fill."""
    for order in book.orders.values():
        name = order.client_order_id
        theirs = world.exchange.named_by(name)
        sold = sum((one.cum for one in theirs), ZERO)
        check(filled(order) == sold, "16 ledger", f"{name}: {filled(order)} booked, {sold} filled at the broker")
        check(known(order) == filled(order), "11 agree", f"{name} has a gap")
        fills = sorted((fill.cum, fill.quantity, fill.price) for one in theirs for fill in one.fills if fill.stands)
        booked = sorted((one.cum_quantity or ZERO, one.quantity, one.price) for one in standing(order))
        check(booked == fills, "16 ledger", f"{name}: booked {booked}, the broker's are {fills}")
        live = any(one.status in LIVE for one in theirs)
        check(not (live and over(order)), "11 agree", f"{name} is over, and lives at the broker")
        _check_label(order, len(theirs))
    held = world.exchange.quantities[book.position.symbol]
    check(
        book.position.quantity == held, "16 ledger", f"{book.position.quantity} of {book.position.symbol}, not {held}"
    )


def _check_label(order: Order, theirs: int) -> None:
    status = order.status
    absent = status in (OrderStatus.PLANNED, OrderStatus.DENIED, OrderStatus.SUBMIT_UNKNOWN, OrderStatus.LOST)
    refused = status is OrderStatus.REJECTED and order.broker_order_id is None
    check(bool(theirs) is not (absent or refused), "11 agree", f"{order.client_order_id} is {status}: {theirs} there")


def _check_not_stuck(world: World) -> None:
    """13: every accepted request is final, or a person has been told what to do about it. 11: completed is whole."""
    stuck = [f"{one.id} is {one.status}" for one in unexplained(world.database)]
    check(not stuck, "13 no silent stuck", ", ".join(stuck))
    for request in world.database.requests():
        whole = request.filled_quantity == request.target_quantity
        done = request.status is RequestStatus.COMPLETED
        taken_back = not world.exchange.reversed.isdisjoint(world.database.books[request.position_id].orders)
        explained = done and taken_back and request.reason in (REVERSED, EXTERNALLY_CLOSED)
        check(done is whole or explained, "11 agree", f"{request.id} is {request.status}, {request.reason}")


def _check_position(book: Book) -> None:
    position = book.position
    closed = position.status is PositionStatus.CLOSED
    check(
        closed is is_residual(position.asset_type, position.quantity),
        "11 agree",
        f"{position.id}: {position.status} {position.quantity}",
    )
    check(closed is (position.closed_at is not None), "11 agree", f"{position.id}: closed at {position.closed_at}")
    clear = all(over(one) for one in book.orders.values())
    check(clear or position.exposure_unproven or not closed, "11 agree", f"{position.id}: exposure is not said")


def _check_promises(world: World) -> None:
    for key, (request_id, _) in world.api.promised.items():
        kept = [one.id for one in world.database.books[key[0]].requests.values() if one.idempotency_key == key[1]]
        check(kept == [request_id], "6 atomic accept", f"{key} was promised {request_id}, there is {kept}")


def _check_published(world: World) -> None:
    """14: every event is in Kafka, by its row's emission or a later one. 17: the newest is the database's state."""
    seen = published(world.topics)
    for row in world.database.wal:
        event_id, emission = row.judged.key
        check(seen.get(event_id, 0) >= emission, "14 published", f"{row.event.event_type} {event_id} {emission}")
    for book in world.database.books.values():
        position = book.position
        _check_history(world, position)
        mine = [one.value for one in world.topics[Topic.POSITION_EVENTS].entries() if one.key == str(position.id)]
        newest = max(mine, key=lambda one: one.position_version or 0, default=None)
        if newest is None:
            check(position.version == 1, "17 risk", f"position {position.id} has version {position.version}, untold")
            continue
        check(newest.position_version == position.version, "17 risk", f"position {position.id}: newest version")
        value = event_value(newest)
        said = (value["quantity"], value["position_status"], value["exposure_unproven"])
        true = (decimal_text(position.quantity), position.status, position.exposure_unproven)
        check(said == true, "17 risk", f"position {position.id}: told {said}, is {true}")


def _check_history(world: World, position: Position) -> None:
    """15: whoever applies only higher versions has the database's history. A hole is a version that a lost slot took
    and that was emitted again when a higher one was there, or found by a connector that was set back. But for what the
    connector repeats, or finds, the highest emissions stand in the order of the versions."""
    told = [one for one in world.topics[Topic.POSITION_EVENTS].entries() if one.key == str(position.id)]
    check(len({one.partition for one in told}) <= 1, "15 order per key", f"position {position.id}: partitions")
    copies = [(one.value.position_version or 0, one.value.emission) for one in told]
    check({version for version, _ in copies} == set(range(2, position.version + 1)), "15 order per key", "versions")
    applied = set(accumulate((version for version, _ in copies), max))
    first = dict(reversed(copies))
    holes = [one for one in first if one not in applied and first[one] == 1]
    check(
        not holes or bool(world.faults.seen[Fault.CDC_RESENT]),
        "15 order per key",
        f"position {position.id}: {holes} came after higher versions",
    )
    highest = dict(sorted(copies))
    found = {
        (one.value.position_version, one.value.emission)
        for one in told
        if (one.value.event_id, one.value.emission) in world.connector.skipped
    }
    emitted = [one for one in dict.fromkeys(copies) if highest[one[0]] == one[1] and one not in found]
    order = [version for version, _ in emitted if version not in holes]
    check(order == sorted(order), "15 order per key", f"position {position.id}: emitted in the order {order}")


def _check_accounting(world: World) -> None:
    """16: each execution once for accounting, however often its record came."""
    told = told_to_accounting(row.event for row in world.database.wal)
    check(told == entered(world.database.orders()), "16 ledger", "accounting and executions differ")


def unexplained(database: Database) -> list[CloseRequest]:
    """Unfinished requests of which no incident tells a person what to do. What is frozen holds its whole position."""
    found = []
    for request in database.requests():
        book = database.books[request.position_id]
        names = {str(request.id), str(book.position.id), *(one.client_order_id for one in book.orders_of(request.id))}
        kinds = {kind for kind, subject in database.incidents if subject in names}
        freezing = {kind for kind, subject in database.incidents if subject in names | book.orders.keys()}
        frozen = {one.frozen_reason for one in book.requests.values()} & freezing
        if request.unfinished and not frozen and not kinds & EXCUSES.get(request.status, frozenset()):
            found.append(request)
    return found
