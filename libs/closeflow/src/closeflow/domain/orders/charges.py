"""Commission and fees of executions: facts beside the ledger, stated with an execution, later, or by themselves.

What the report of an execution states goes with it: a bust takes it back, and a correction that states none has that of
what it corrects. A charge with an id of its own stands by itself, because the broker gives it back by another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import (
    ZERO,
    BrokerUpdate,
    Charge,
    ExecKind,
    ExecType,
    Execution,
    Incident,
    Order,
    Position,
)

_STATES_ITS_OWN: Final = frozenset({ExecType.TRADE, ExecType.TRADE_CORRECT})


def keep_charge(order: Order, update: BrokerUpdate) -> tuple[Order, tuple[Incident, ...]]:
    """The order with what the update charges. The first that was said of one charge stays."""
    charge = _charge(update)
    if charge is None:
        return order, ()
    known = _known(order, charge)
    if known is None:
        return replace(order, charges=(*order.charges, charge)), ()
    if _amounts(known) == _amounts(charge):
        return order, ()
    said = f"charge {charge.charge_id} of execution {charge.exec_id} came again as {_told(charge)}, not {_told(known)}"
    return order, (about_order(order, IncidentKind.CHARGE_NOT_BOOKED, said),)


def own_charge(order: Order, row: Execution) -> Charge | None:
    """What goes with a trade or correction: as it states it itself, else as what it corrects does."""
    own = _own_by_name(order)
    rows = {one.exec_id: one for one in order.executions}
    for _ in range(len(rows) + 1):
        if row.exec_id in own:
            return own[row.exec_id]
        before = rows.get(order.aliases.get(row.ref_exec_id, row.ref_exec_id)) if row.ref_exec_id else None
        if before is None:
            return None
        row = before
    return None


def separate_charges(order: Order) -> Mapping[str, tuple[Charge, Execution]]:
    """Those with an id of their own whose execution is booked, by their ids; one of a bust is of what it took back."""
    rows = {one.exec_id: one for one in order.executions}
    named = ((one, _booked(order, rows, one.exec_id)) for one in order.charges if not one.is_own)
    return {one.charge_id: (one, row) for one, row in named if row is not None}


def in_currency_of(position: Position, order: Order, update: BrokerUpdate) -> tuple[BrokerUpdate, tuple[Incident, ...]]:
    """The update without a charge that is stated with its execution in another currency than the position's: one entry
    of the books has one currency, and the fill must not be lost for it."""
    stated = bool(update.commission or update.fees)
    if not stated or update.exec_type is ExecType.CHARGE or update.currency in (None, position.currency):
        return update, ()
    said = f"execution {update.exec_id} states its charge in {update.currency}, the position is in {position.currency}"
    told = about_order(order, IncidentKind.CHARGE_NOT_BOOKED, said)
    return replace(update, commission=None, fees=None, currency=None), (told,)


def _booked(order: Order, rows: Mapping[str, Execution], exec_id: str | None) -> Execution | None:
    for _ in range(len(rows) + 1):
        row = rows.get(order.aliases.get(exec_id, exec_id)) if exec_id is not None else None
        if row is None or row.kind is not ExecKind.BUST:
            return row
        exec_id = row.ref_exec_id
    return None


def _charge(update: BrokerUpdate) -> Charge | None:
    alone = update.exec_type is ExecType.CHARGE
    of = update.exec_ref_id if alone else update.exec_id
    commission, fees = update.commission or ZERO, update.fees or ZERO
    if update.exec_id is None or of is None or not (commission or fees):
        return None
    if not alone and update.exec_type not in _STATES_ITS_OWN:
        return None
    return Charge(
        broker=update.broker,
        charge_id=update.exec_id,
        exec_id=of,
        commission=commission,
        fees=fees,
        currency=update.currency,
        occurred_at=update.transact_time,
        source=update.source,
    )


def _known(order: Order, charge: Charge) -> Charge | None:
    if charge.is_own:
        return _own_by_name(order).get(order.aliases.get(charge.exec_id, charge.exec_id))
    return next((one for one in order.charges if one.charge_id == charge.charge_id), None)


def _own_by_name(order: Order) -> dict[str, Charge]:
    """By the name under which the execution is booked; of two feeds that name it, the first to say counts."""
    found: dict[str, Charge] = {}
    for one in order.charges:
        if one.is_own:
            found.setdefault(order.aliases.get(one.exec_id, one.exec_id), one)
    return found


def _amounts(one: Charge) -> tuple[object, ...]:
    return one.commission, one.fees


def _told(one: Charge) -> str:
    return f"commission {one.commission} and fees {one.fees}"
