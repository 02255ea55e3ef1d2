"""Commission and fees: what the accounting events say of an order in all, against what is booked of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from closectl.reconciling.against_events import PUBLISH_WITHIN, Kept
from closectl.reconciling.items import Difference, DifferenceKind, day_of
from closectl.reconciling.told import ToldCharge
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.ledger_rows import Ledger, LedgerRow

_NOTHING = Decimal(0)


class ChargesCompared(NamedTuple):
    """`too_new`: orders that do not add up yet and changed a moment ago, so that not every source can know it."""

    differences: Sequence[Difference]
    too_new: Sequence[str]


def compare_charges(ledger: Ledger, told: Sequence[ToldCharge], *, kept: Kept) -> ChargesCompared:
    """A difference for each order whose commission or fees do not add up, naming its events that charge. One of whose
    events some may be gone is left out."""
    events, twice = _by_order(told)
    until = ledger.at - PUBLISH_WITHIN
    wrong = list(_wrong(ledger, events, kept=kept))
    return ChargesCompared(
        [*twice, *(one for changed_at, one in wrong if changed_at < until)],
        [one.subject for changed_at, one in wrong if changed_at >= until],
    )


def _wrong(
    ledger: Ledger, events: Mapping[str, Sequence[ToldCharge]], *, kept: Kept
) -> Iterator[tuple[datetime, Difference]]:
    """With each, when its order was changed last."""
    rows: defaultdict[str, list[LedgerRow]] = defaultdict(list)
    for row in ledger.rows:
        rows[row.client_order_id].append(row)
    booked = {one.client_order_id: one for one in ledger.charges}
    for order in events.keys() - rows.keys():
        difference = _differs(events[order][0], events[order], (_NOTHING, _NOTHING))
        yield max(one.occurred_at for one in events[order]), difference
    for order in rows.keys() & (events.keys() | booked.keys()):
        of_order, charge, of_events = rows[order], booked.get(order), events.get(order, ())
        in_books = (charge.commission, charge.fees) if charge is not None else (_NOTHING, _NOTHING)
        if in_books == _summed(of_events) or any(kept.lacks(one) for one in of_order):
            continue
        # The events were read after the rows: what was booked in between is told and not among them.
        changed = [*(one.until for one in of_order), *(one.written_at for one in of_events if one.written_at)]
        last = max(changed if charge is None else [*changed, charge.until])
        yield last, _differs(of_order[0], of_events, in_books)


def _by_order(told: Sequence[ToldCharge]) -> tuple[Mapping[str, list[ToldCharge]], list[Difference]]:
    """Each event once, as its first record says it; and those whose records charge different amounts."""
    first: dict[UUID, ToldCharge] = {}
    twice = []
    for one in told:
        known = first.setdefault(one.event_id, one)
        if one.alone and (known.commission, known.fees) != (one.commission, one.fees):
            said = f"charges {decimal_text(known.amount)} and, told again, {decimal_text(one.amount)} {one.currency}"
            subject, off = f"event {one.event_id}", one.amount - known.amount
            twice.append(_difference(DifferenceKind.EVENT_CONTRADICTS, one, one.occurred_at, subject, said, off))
    events: defaultdict[str, list[ToldCharge]] = defaultdict(list)
    for one in first.values():
        if one.commission or one.fees:
            events[one.client_order_id].append(one)
    return events, twice


def _summed(events: Sequence[ToldCharge]) -> tuple[Decimal, Decimal]:
    """Commission and fees."""
    return sum((one.commission for one in events), _NOTHING), sum((one.fees for one in events), _NOTHING)


def _differs(of: LedgerRow | ToldCharge, events: Sequence[ToldCharge], booked: tuple[Decimal, Decimal]) -> Difference:
    said = _summed(events)
    amounts = [
        f"{name} {decimal_text(one)} instead of {decimal_text(other)}"
        for name, one, other in zip(("commission", "fees"), said, booked, strict=True)
        if one != other
    ]
    off = sum(said, _NOTHING) - sum(booked, _NOTHING)
    named = (
        "; ".join(f"event {one.event_id} charges {decimal_text(one.amount)}" for one in events) or "no event charges"
    )
    detail = f"is told to cost {', '.join(amounts)}, {decimal_text(off)} {of.currency} off: {named}"
    at = max((one.occurred_at for one in events), default=of.occurred_at)
    return _difference(DifferenceKind.CHARGE_DIFFERS, of, at, f"order {of.client_order_id}", detail, off)


def _difference(
    kind: DifferenceKind, of: LedgerRow | ToldCharge, at: datetime, subject: str, detail: str, charged: Decimal
) -> Difference:
    """What is charged too much is cash that the events lack."""
    return Difference(kind, of.account_id, of.symbol, day_of(at), subject, detail, -charged)
