"""Check what the consumers were given against what they kept: offsets (22) and the broker's updates (7, 9, 10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final
from uuid import UUID

from closectl.verifying.reading import KAFKA, Given, TopicNames, Topics
from closectl.verifying.report import Looked, looked
from closeflow.contracts.topics import BROKER_FILL, SUBMIT_ORDER
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import ExecKind
from closeflow.domain.text import decimal_text
from closeflow.kafka.read_to_end import Partition
from closeflow.storage.verify.compared_state import KnownOrder, State

APPLIED: Final = "applied"
FILL_PROCESSOR: Final = "fill-processor"
Committed = Mapping[str, Mapping[Partition, int]]
Wrong = Iterator[tuple[str, str]]


def check_offsets(state: State, topics: Topics, committed: Committed, names: TopicNames) -> list[Looked]:
    """`committed` was read before `state`, `topics` after it."""
    found: list[Looked] = []
    for group, topic in names.groups.items():
        offsets = {place: offset for place, offset in committed.get(group, {}).items() if place[0] == topic}
        passed = [one for one in topics.given if _passed(one, offsets)]
        other, wrong = _without_receipt(state, topics, group, passed)
        wrong += _beyond_the_end(topics, group, offsets)
        found.append(looked(22, KAFKA, f"records of {topic} below the offsets of {group}", len(passed) - other, wrong))
        if other:
            found.append(looked(22, KAFKA, f"records of {topic} for other accounts", other, ()))
    return found


def _passed(one: Given, offsets: Mapping[Partition, int]) -> bool:
    topic, partition, offset = one.place
    return offset < offsets.get((topic, partition), 0)


def _without_receipt(
    state: State, topics: Topics, group: str, passed: Sequence[Given]
) -> tuple[int, list[tuple[str, str]]]:
    """A submitter leaves out the records of accounts that it does not serve: those of which it has no receipt at all.
    Returns how many these are, and the other records that left no trace."""
    receipts: Mapping[UUID, str] = state.receipts.get(group, {})
    served = {one.value.get("account_id") for one in passed if one.event_id in receipts}
    other, wrong = 0, list[tuple[str, str]]()
    for one in passed:
        if one.event_id in receipts or one.place in state.parked or one.place in topics.dead:
            continue
        topic, partition, offset = one.place
        account = one.value.get("account_id")
        if topic == SUBMIT_ORDER and account is not None and served and account not in served:
            other += 1
            continue
        wrong.append(
            (
                f"record {topic}/{partition}/{offset}",
                f"{group} committed past it; it has no receipt, nor was it put aside",
            )
        )
    return other, wrong


def _beyond_the_end(topics: Topics, group: str, offsets: Mapping[Partition, int]) -> list[tuple[str, str]]:
    return [
        (
            f"partition {topic}/{partition}",
            f"{group} committed {offset}; the log ends at {topics.ends[topic, partition]}",
        )
        for (topic, partition), offset in offsets.items()
        if offset > topics.ends.get((topic, partition), offset)
    ]


def check_updates(state: State, topics: Topics) -> list[Looked]:
    """What the broker said, against the orders. Only what has its receipt is judged: the rest is still to be read. An
    order that ever had an incident is explained by it."""
    receipts = state.receipts.get(FILL_PROCESSOR, {})
    orders = {one.client_order_id: one for one in state.orders}
    given = [one for one in topics.given if one.place[0] == BROKER_FILL and one.event_id in receipts]
    applied = [
        (one, order)
        for one in given
        if one.event_id is not None
        and receipts[one.event_id] == APPLIED
        and (order := orders.get(str(one.value.get("client_order_id")))) is not None
    ]
    reversed_ = {one.client_order_id for one in state.executions if one.kind is not ExecKind.TRADE}
    quantities = [(one, order) for one, order in applied if order.client_order_id not in reversed_ | state.noted]
    unknown = _unknown(state, orders, given)
    return [
        looked(7, KAFKA, "broker updates", len(given), [*unknown, *_other_ticket(applied)]),
        looked(9, KAFKA, "broker updates applied", len(applied), _went_back(applied)),
        looked(10, KAFKA, "broker updates applied", len(quantities), _forgotten(quantities)),
    ]


def _unknown(state: State, orders: Mapping[str, KnownOrder], given: Sequence[Given]) -> Wrong:
    for one in given:
        name = str(one.value.get("client_order_id"))
        if parse_client_order_id(name) is not None and name not in orders and name not in state.noted:
            yield f"order {name}", "the broker reports on it; the database has no such order"


def _other_ticket(applied: Sequence[tuple[Given, KnownOrder]]) -> Wrong:
    """Every send of an id is the order's own ticket, so what the broker has is that, whichever send reached it."""
    for one, order in applied:
        theirs = (one.value.get("symbol"), one.value.get("side"), one.value.get("account_id"))
        quantity = _decimal(one.value.get("order_qty"))
        if theirs != (order.symbol, order.side, order.account_id) or quantity not in (None, order.quantity):
            yield (
                f"order {order.client_order_id}",
                f"is to {order.side} {decimal_text(order.quantity)} {order.symbol} of {order.account_id}; the broker "
                f"has {theirs[1]} {one.value.get('order_qty')} {theirs[0]} of {theirs[2]}",
            )


def _went_back(applied: Sequence[tuple[Given, KnownOrder]]) -> Wrong:
    for one, order in applied:
        seq = one.value.get("broker_seq")
        if seq is not None and (order.broker_update_seq is None or int(seq) > order.broker_update_seq):
            yield f"order {order.client_order_id}", f"applied sequence {seq} and is at {order.broker_update_seq}"


def _forgotten(applied: Sequence[tuple[Given, KnownOrder]]) -> Wrong:
    """Without a bust or correction the stated quantity never falls, so it is the highest of all that were stated."""
    for one, order in applied:
        cum = _decimal(one.value.get("cum_qty"))
        if cum is not None and one.value.get("broker_order_id") is not None and cum > order.stated:
            yield (
                f"order {order.client_order_id}",
                f"the broker stated {decimal_text(cum)} filled; what is kept is {decimal_text(order.stated)}",
            )


def _decimal(value: object) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None
