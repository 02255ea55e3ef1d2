"""Rule R6: whether an order that the broker does not find can be sent again under its id, or declared lost (ADR 0022).

The age of a check is not atomic with the write that follows it, so a paused sender can still write; that it has exited
must therefore be confirmed, and what was not found before its exit proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain.batch import BatchResult
from closeflow.domain.enums import SENDABLE
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import Book, Incident, Order, Send, SendAnswer, SendKind, Side
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.claim import Sender, not_found
from closeflow.domain.sending.next_step import LookUp, next_step
from closeflow.domain.sending.send_check import Clear, recheck
from closeflow.domain.text import decimal_text
from closeflow.domain.trading_controls import Controls

NOT_FOUNDS_NEEDED: Final = 5
NOT_FOUND_WINDOW_S: Final = 60.0
BROKER_ASKED: Final = "broker asked"
"""The point that is missing while the broker's own evidence is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the broker said about an order. `order` is the order as it was known, and `at` the database's time, before
    the question. `looked_up` is None when it was explicitly not found, else what came instead."""

    order: Order
    at: datetime
    looked_up: str | None
    executions: tuple[str, ...]
    """Ids of the executions that it lists for the order since the first send."""
    held: Decimal
    """The signed quantity that it holds in the order's symbol."""
    quantity_there: Decimal | None = None
    """The order's own quantity as the broker has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What our own tables say besides the book. `exited` has the senders that are known to have exited."""

    exited: Mapping[str, datetime]
    says_it_closes: Collection[str] = ()
    """The senders whose every order says that it closes."""
    expected: Decimal
    """What the positions of the account in the symbol make together."""
    denied: tuple[int, datetime] | None = None
    """How often, and since when, the broker denies an order that it had acknowledged."""


@dataclass(frozen=True, slots=True)
class Point:
    """One piece of evidence."""

    name: str
    holds: bool
    detail: str


def window(visibility_lag_s: float, least_s: float = NOT_FOUND_WINDOW_S) -> timedelta:
    """How long the broker must not have found an order (R6)."""
    return timedelta(seconds=max(least_s, 3 * visibility_lag_s))


def evidence(order: Order, asked: Asked | str, known: Known, *, now: datetime, within: timedelta) -> tuple[Point, ...]:
    """The assembled evidence that this order, as it is now, does not live at the broker. `asked` is a sentence when the
    broker could not be asked. Only if every point holds may the order be declared lost."""
    points = [_not_done(order), _senders(order, known), _absence(order, known, now=now, within=within)]
    gap = order_status.unattributed(order)
    points.append(Point("fills named", gap == 0, f"{decimal_text(gap)} filled that no execution names"))
    if isinstance(asked, str):
        return (*points, Point(BROKER_ASKED, False, asked))
    return (*points, *_of_broker(order, asked, known))


def _not_done(order: Order) -> Point:
    if order_status.never_taken(order):
        return Point("sent", False, "it was never sent; `closectl requests cancel` withdraws it")
    return Point(
        "sent",
        not order_status.is_done(order),
        f"it is {order.status}, sent {order_status.sends_that_count(order)} times",
    )


def _open(order: Order) -> list[Send]:
    """Sends of which nobody knows whether their sender is still at it. A late cancel of a lost order harms nothing."""
    return [one for one in order.sends if one.kind is SendKind.SUBMIT and one.answer is None]


def _senders(order: Order, known: Known) -> Point:
    living = sorted({one.sender for one in _open(order)} - known.exited.keys())
    if not living:
        return Point("senders exited", True, "every send is answered, or its sender has exited")
    commands = ", ".join(f"`closectl senders exited {name}`" for name in living)
    return Point(
        "senders exited", False, f"a send without an answer may still go out; once seen to be gone: {commands}"
    )


def _absence(order: Order, known: Known, *, now: datetime, within: timedelta) -> Point:
    """Enough explicit not-founds, and the last moment at which somebody can have written is long enough ago."""
    sends = [one for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    written = [one.lease_until for one in sends] + [known.exited.get(one.sender, now) for one in _open(order)]
    count = order.not_found_count
    if order.status not in SENDABLE:
        count, since = known.denied or (0, now)
        if order.last_broker_update_at is not None and order.last_broker_update_at >= since:
            count = 0  # It was heard of since; what was denied before proves nothing.
        written.append(since)
    silent = now - max(written, default=now)
    held = count >= NOT_FOUNDS_NEEDED and silent >= within
    told = f"{count} times not found, {silent.total_seconds():.0f} s after the last lease or exit"
    return Point("not found", held, f"{told} (needed: {NOT_FOUNDS_NEEDED} times, {within.total_seconds():.0f} s)")


def _of_broker(order: Order, asked: Asked, known: Known) -> Iterator[Point]:
    yield Point("look-up", asked.looked_up is None, asked.looked_up or "the broker does not find it now")
    booked = {one.exec_id for one in order.executions} | order.aliases.keys()
    new = [one for one in asked.executions if one not in booked]
    detail = f"it lists {', '.join(new)}, which is not booked" if new else "it lists none that is not booked"
    yield Point("executions", not new, detail)
    same = asked.held == known.expected
    detail = f"the broker holds {decimal_text(asked.held)} {order.symbol}, we expect {decimal_text(known.expected)}"
    yield Point("position", same, detail)
    yield Point("nothing newer", _facts(order) == _facts(asked.order), "facts of the order against the evidence")


def _facts(order: Order) -> tuple[object, ...]:
    return (order.executions, order.statements, order.sends, order.last_broker_update_at)


def may_repeat(
    book: Book,
    order: Order,
    asked: Asked | str,
    known: Known,
    *,
    refuses_to_exceed: bool,
    now: datetime,
    within: timedelta,
) -> tuple[Point, ...]:
    """Only if every point holds may the same id be sent again without a person, at a broker that forgets ids.

    The whole evidence of absence must be there. Were it wrong nevertheless, one of the two orders would close the whole
    position and the broker refuse the other: so every send must have said that it closes, at a broker that heeds that.
    """
    sends = [one for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    heeded = refuses_to_exceed and all(one.sender in known.says_it_closes for one in sends)
    silent = all(one.answer in (None, SendAnswer.UNKNOWN) for one in sends)
    return (
        *evidence(order, asked, known, now=now, within=within),
        Point("never answered", silent, "the broker must not have spoken about any send of it"),
        Point("refuses to exceed", heeded, "every send must have said that it closes, at a broker that heeds that"),
        _is_whole(book, order, asked, known),
    )


def _is_whole(book: Book, order: Order, asked: Asked | str, known: Known) -> Point:
    sign = 1 if order.side is Side.SELL else -1
    held = {book.position.quantity, known.expected} | ({asked.held} if isinstance(asked, Asked) else set())
    detail = f"it is to {order.side} {decimal_text(order.quantity)}; held: {', '.join(map(decimal_text, sorted(held)))}"
    return Point("whole position", held == {sign * order.quantity}, detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsenceRules:
    """What is known of the broker, and how long it must not have found an order."""

    within: timedelta
    forgets_no_id: bool
    """It refuses a client order id that it had before, for ever: then a repeat cannot double."""
    refuses_to_exceed: bool


@dataclass(slots=True, kw_only=True)
class AbsenceResult(BatchResult):
    """What a not-found came to."""

    to_ask: Order | None = None
    """The order, as it is known at `now`, of which only the broker's own evidence is missing."""


def decide_not_found(
    book: Book,
    order: Order,
    *,
    asked: Asked | str | None,
    known: Known,
    controls: Controls,
    now: datetime,
    watched: Set[int],
    absent_s: Callable[[], float],
    sender: Sender,
    rules: AbsenceRules,
) -> AbsenceResult | None:
    """Count an explicit not-found as evidence; then send the same id again where that cannot double, or tell a person,
    or ask for the rest of the evidence. None when something happened to the order meanwhile.

    Without `asked` the not-found is counted; with it the evidence is whole, and it was counted before. `watched` is as
    in `next_step`; `absent_s` is how long this process has itself been told that the order is not there.
    """
    if next_step(book, order, controls=controls, now=now, watched=watched) != LookUp(absence_counts=True):
        return None
    result = AbsenceResult(before={book.position.id: book}, now=now, controls=controls)
    if asked is None:
        order = not_found(order, now=now)
    result.put_order(order)
    incident = absence_incident(order, now=now, watched_s=absent_s(), within=rules.within)
    missing = [one for one in _repeatable(book, order, asked, known, now, rules) if not one.holds] if incident else []
    lacks = [f"{one.name}: {one.detail}" for one in missing if asked is not None or one.name != BROKER_ASKED]
    if missing and not lacks:
        result.to_ask = order
    if rules.forgets_no_id or (incident is not None and not missing):
        check = recheck(book, order, controls=controls, now=now, may_repeat=True)
        if isinstance(check, Clear):
            sender.claim(result, order, SendKind.SUBMIT)
    found_now = isinstance(asked, Asked) and asked.looked_up is not None
    if incident is not None and not (result.claimed or result.to_ask or found_now):
        if lacks and rules.refuses_to_exceed:
            incident = replace(incident, detail=f"{incident.detail}; not sent again, because of {'; '.join(lacks)}")
        result.incidents.append(incident)
    return result


def _repeatable(
    book: Book, order: Order, asked: Asked | str | None, known: Known, now: datetime, rules: AbsenceRules
) -> tuple[Point, ...]:
    return may_repeat(
        book,
        order,
        "not yet" if asked is None else asked,
        known,
        refuses_to_exceed=rules.refuses_to_exceed,
        now=now,
        within=rules.within,
    )


def absence_incident(order: Order, *, now: datetime, watched_s: float, within: timedelta) -> Incident | None:
    """Rule R6: five explicit not-founds over the window of absence (`within`), counted from the last lease by the
    database's clock, and by the observer's own since the first of them (`watched_s`): a clock that jumped proves
    nothing. Only an operator may conclude from it that the order is lost."""
    leases = [one.lease_until for one in order_status.submits(order) if one.counts]
    if order.not_found_count < NOT_FOUNDS_NEEDED or not leases:
        return None
    silent = min((now - max(leases)).total_seconds(), watched_s)
    if silent < within.total_seconds():
        return None
    senders = ", ".join(sorted({one.sender for one in order_status.submits(order) if one.answer is None})) or "none"
    detail = (
        f"the broker did not find it {order.not_found_count} times for {silent:.0f} s after the last lease; "
        f"{len(leases)} sends may have reached it; senders without an answer: {senders}"
    )
    return about_order(order, IncidentKind.ORDER_NOT_FOUND, detail)
