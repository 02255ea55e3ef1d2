"""What must hold after every commit and at every send, counted again by other means (invariants.md).

Nothing here calls the functions that decide; the quantities are those of `counting`. An order whose executions the
broker took back or changed may seem to have filled too much until that is told: there the bounds hold at the end only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from closeflow.domain.close.timeouts import SUBMIT_UNKNOWN
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import UNFINISHED, ZERO, Book, CloseRequest, Order, OrderStatus, Send, SendKind, Side, Topic
from closeflow.domain.sending.absence import NOT_FOUND_WINDOW_S
from closeflow.domain.sending.ticket import Ticket
from closeflow.domain.trading_controls import TradingState
from closeflow.domain.transitions import illegal_moves
from tests.simulation.core import LEASE_S
from tests.simulation.counting import changed, entered, filled, known, open_quantity, over, told_to_accounting
from tests.simulation.database import Database, Tx
from tests.simulation.faults import Violation
from tests.simulation.jobs import Call

HALT_WITHIN_S = 1.0


def counting_sends(order: Order | None) -> list[Send]:
    """Those that the broker may have seen."""
    return [one for one in order.sends if one.kind is SendKind.SUBMIT and one.counts] if order else []


def _refused_for_now(order: Order) -> bool:
    """This broker's refusals that say nothing against the order's price: such a try costs no retry. Nor does the probe
    of an open circuit breaker that is refused."""
    probes = all(one.probe for one in counting_sends(order))
    return order.status is OrderStatus.REJECTED and (order.reject_code in ("price_band", "market_closed") or probes)


def check(condition: bool, invariant: str, detail: str) -> None:
    if not condition:
        raise Violation(f"{invariant}: {detail}")


@dataclass(slots=True)
class Safety:
    """Told of every commit and of every order on the wire."""

    database: Database = field(init=False)
    reversed: Set[str] = frozenset()
    wire: dict[str, Ticket] = field(default_factory=dict)
    claimed: dict[tuple[str, int], float] = field(default_factory=dict)
    """True time of each submit's claim, by client order id and number."""
    commits: int = 0

    def committed(self, before: Mapping[int, Book], tx: Tx) -> None:
        self.commits += 1
        if tx.submits():
            used, allowed = self.database.limits.window_count, self.database.limits.submits_per_minute
            check(used <= allowed, "19 limits", f"{used} submits in a window of {allowed}")
            check(self.database.trading is not TradingState.HALTED, "18 kill", "a send is claimed under a halt")
            for order, _ in tx.sends:
                most = self.database.limits.max_order_quantity
                check(order.quantity <= most, "19 limits", f"{order.client_order_id} is for {order.quantity} > {most}")
        for order, send in tx.sends:
            if send.kind is SendKind.SUBMIT:
                self._check_repeat(before[order.position_id].orders.get(order.client_order_id), send.n)
                self.claimed[(order.client_order_id, send.n)] = self.database.clock.elapsed
        for incident in tx.incidents:
            if incident.kind == "order_not_found" and incident.client_order_id is not None:
                self._check_absent(incident.client_order_id)
        touched = {after.position.id for _, after in tx.changes}
        touched |= {order.position_id for order, _ in tx.sends}
        touched |= {one.position_id for said in tx.answers if (one := self.database.order(said.client_order_id))}
        for position_id in touched:
            was, now = before[position_id], self.database.books[position_id]
            if now is was:
                continue
            for move in illegal_moves(was, now):
                raise Violation(f"9 no regress: {move}")
            upset = bool(self.reversed & now.orders.keys())
            _check_position(now, upset=upset)
            for request in now.requests.values():
                _check_request(was, now, request, tx, upset=upset)
            for name, order in now.orders.items():
                if order is not was.orders.get(name):
                    _check_order(was, now, order, upset=name in self.reversed)
            _check_events(was, now, tx)
            _check_told(was, now, tx)

    def _check_repeat(self, order: Order | None, n: int) -> None:
        """Invariant 20: an id goes out again only once a sender that never answered has been silent for a lease."""
        for one in counting_sends(order):
            silent = self.database.clock.elapsed - self.claimed[(order.client_order_id, one.n)] if order else 0.0
            late = one.answer is not None or silent >= LEASE_S
            check(late, "20 clock", f"submit {n} is claimed {silent} s after submit {one.n}, which nobody answered")

    def _check_absent(self, client_order_id: str) -> None:
        """Rule R6: a person is told only after the window, and the lease of a sender that never answered before it."""
        order = self.database.order(client_order_id)
        for one in counting_sends(order):
            silent = self.database.clock.elapsed - self.claimed[(client_order_id, one.n)]
            least = NOT_FOUND_WINDOW_S + (LEASE_S if one.answer is None else 0.0)
            check(silent >= least, "20 clock", f"{client_order_id} is taken for absent after {silent} s")

    def on_wire(self, call: Call, ticket: Ticket, sender: str) -> None:
        """Invariant 7, and that nothing goes out without its row."""
        order = self.database.order(ticket.client_order_id)
        if order is None:
            raise Violation(f"7 deterministic id: {ticket.client_order_id} is on the wire and not in the database")
        send = call.job.send
        mine = [one for one in order.sends if (one.kind, one.n, one.sender) == (send.kind, send.n, sender)]
        check(len(mine) == 1, "7 deterministic id", f"{ticket.client_order_id} is sent without a row of {sender}")
        since = self.database.clock.elapsed - self.database.halted_at
        halted = self.database.trading is TradingState.HALTED
        check(not halted or since < HALT_WITHIN_S, "18 kill", f"{ticket.client_order_id} leaves {since} s after a halt")
        first = self.wire.setdefault(ticket.client_order_id, ticket)
        check(first == ticket, "7 deterministic id", f"{ticket} is not what was sent before: {first}")


def _check_position(book: Book, *, upset: bool) -> None:
    position = book.position
    signs = {Side.BUY: 1, Side.SELL: -1}
    moved = sum((filled(one) * signs[one.side] for one in book.orders.values()), ZERO)
    expected = position.opening_quantity + moved
    if upset and expected * position.opening_quantity < ZERO:
        expected = ZERO
    check(position.quantity == expected, "1 conserve", f"position {position.id}: {position.quantity} is not {expected}")
    check(position.quantity * position.opening_quantity >= ZERO, "1 conserve", f"position {position.id} changed sides")
    active = [one.id for one in book.requests.values() if one.status in UNFINISHED]
    check(len(active) <= 1, "4 one active", f"position {position.id} has {active}")
    check([position.active_close_request_id] in ([None], active), "4 one active", f"position {position.id}")
    check(bool(active) is bool(position.active_close_request_id), "4 one active", f"position {position.id} names none")


def _check_request(before: Book, book: Book, request: CloseRequest, tx: Tx, *, upset: bool) -> None:
    orders = book.orders_of(request.id)
    living = [one.client_order_id for one in orders if not over(one)]
    check(len(living) <= 1, "3 one live", f"request {request.id} has {living}")
    was = before.requests.get(request.id)
    if was is None:
        submits = [one for one in tx.events if one.close_request_id == request.id and one.topic is Topic.SUBMIT_ORDER]
        check(len(submits) == 1, "6 atomic accept", f"request {request.id} came with {len(submits)} outbox rows")
    else:
        check(request.target_quantity == was.target_quantity, "C: the target is fixed", str(request.id))
        check(request.attempt >= was.attempt, "8 attempt fence", f"request {request.id} went back an attempt")
        again = upset or request.retry_count <= request.max_retries
        check(again, "8 attempt fence", f"request {request.id} retried too often")
        sent = sum(1 for one in orders if counting_sends(one) and not _refused_for_now(one))
        check(upset or sent <= request.max_retries + 1, "8 attempt fence", f"request {request.id} sent {sent} orders")
        retried = request.attempt > was.attempt
        canceled = was.cancel_requested_at is not None
        check(not (retried and canceled), "C: a cancel ends it", f"request {request.id} is retried after it")
        halted = tx.database.trading is TradingState.HALTED and not tx.by_hand
        check(not (retried and halted), "18 kill", f"request {request.id} is retried under a halt")
    sold = sum(map(filled, orders), ZERO)
    check(request.filled_quantity == sold, "11 agree", f"request {request.id}: {request.filled_quantity} is not {sold}")
    check(upset or sold <= request.target_quantity, "2 no oversell", f"request {request.id}: {sold} filled")


def _check_told(before: Book, book: Book, tx: Tx) -> None:
    """13: what a person has to know is told in the transaction that does it."""
    requests, orders = ({getattr(one, of) for one in tx.incidents} for of in ("close_request_id", "client_order_id"))
    for request in before.requests.values():
        given_up = request.unfinished and book.requests[request.id].reason == SUBMIT_UNKNOWN
        check(not given_up or request.id in requests, "13 no silent stuck", f"{request.id} is given up silently")
    for name, order in before.orders.items():
        asked = order.cancel_requested_at is None and book.orders[name].cancel_requested_at is not None
        outlives = asked and not before.requests[order.close_request_id].unfinished
        check(not outlives or name in orders, "13 no silent stuck", f"{name} is canceled silently after its close")


def _check_order(before: Book, book: Book, order: Order, *, upset: bool) -> None:
    name = order.client_order_id
    was = before.orders.get(name)
    request = book.requests[order.close_request_id]
    check(name == client_order_id(request.id, order.attempt), "7 deterministic id", name)
    check(
        known(order) >= ZERO and (upset or known(order) <= order.quantity),
        "10 cum",
        f"{name}: {known(order)} of {order.quantity}",
    )
    check(len({one.exec_id for one in order.executions}) == len(order.executions), "12 once", name)
    if was is None:
        earlier = [one for one in book.orders_of(request.id) if one.attempt < order.attempt]
        check(all(map(over, earlier)), "8 attempt fence", f"{name} was planned while an earlier order lives")
        check(all(filled(one) == known(one) for one in earlier), "8 attempt fence", f"{name} was planned over a gap")
        others = sum((open_quantity(one) for one in book.orders.values() if one is not order), ZERO)
        owed = min(request.target_quantity - sum(map(filled, earlier)), abs(book.position.quantity) - others)
        check(order.quantity == owed, "8 attempt fence", f"{name} is for {order.quantity}, {owed} is owed")
    else:
        check((order.broker_update_seq or 0) >= (was.broker_update_seq or 0), "9 no regress", f"{name}: sequence")
        grew = known(order) >= known(was) and filled(order) >= filled(was)
        check(grew or (upset and changed(order)), "10 cum", f"{name} went back")
        frozen = replace(was, **{one: getattr(order, one) for one in _CHANGING})
        check(frozen == order, "7 deterministic id", f"{name} changed in what goes on the wire")
    submits = {one.n for one in was.sends if one.kind is SendKind.SUBMIT} if was else set[int]()
    if any(one.kind is SendKind.SUBMIT and one.n not in submits for one in order.sends):
        _check_send(before, book, order)


_CHANGING = (
    "status",
    "broker_order_id",
    "executed_quantity",
    "stated_cum_quantity",
    "average_price",
    "broker_update_seq",
    "last_broker_update_at",
    "not_found_count",
    "next_send_at",
    "cancel_requested_at",
    "reject_code",
    "reject_class",
    "executions",
    "aliases",
    "charges",
    "withheld",
    "statements",
    "sends",
)


def _check_send(before: Book, book: Book, order: Order) -> None:
    """Invariant 2 and rule R5 when a send is claimed, under the same locks."""
    may_fill = sum(map(open_quantity, book.orders.values()), ZERO)
    unnamed = sum((known(one) - filled(one) for one in book.orders.values()), ZERO)
    held = abs(book.position.quantity)
    check(may_fill + unnamed <= held, "2 no oversell", f"{order.client_order_id}: {may_fill} + {unnamed} of {held}")
    mine: Iterable[Order] = book.orders_of(order.close_request_id)
    taken = sum((known(one) + open_quantity(one) for one in mine), ZERO)
    target = book.requests[order.close_request_id].target_quantity
    was = before.requests[order.close_request_id]
    check(was.cancel_requested_at is None, "C: a cancel ends it", f"{order.client_order_id} is sent after it")
    check(taken <= target, "2 no oversell", f"{order.client_order_id}: {taken} of a target of {target}")
    check(not over(order), "9 no regress", f"{order.client_order_id} is sent though it is over")


def _check_events(before: Book, book: Book, tx: Tx) -> None:
    """16 and 17 where they begin: in the transaction that books."""
    mine = [one for one in tx.events if one.position_id == book.position.id]
    told, booked = told_to_accounting(mine), entered(book.orders.values())
    booked.subtract(entered(before.orders.values()))
    check(told == booked, "16 ledger", f"booked {booked}, told accounting {told}")
    versions = [one.position_version for one in mine if one.topic is Topic.POSITION_EVENTS]
    raised = book.position.version - before.position.version
    check(len(versions) == raised <= 1, "17 risk", f"version + {raised}, events {versions}")
    visible = ("quantity", "status", "active_close_request_id", "exposure_unproven")
    changed = any(getattr(before.position, one) != getattr(book.position, one) for one in visible)
    check(changed is bool(raised), "17 risk", f"position {book.position.id} changed without an event, or the reverse")
