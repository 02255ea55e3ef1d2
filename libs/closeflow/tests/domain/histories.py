"""Histories of one order for the tests of any order: what a broker did, told in every way that it may be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st

from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, UpdateSource

from .builders import a_trade, an_update, at

B, E = BrokerStatus, ExecType
QUANTITY: Final = 100
_ENDS: Final = (B.CANCELED, B.EXPIRED)


@dataclass(frozen=True)
class History:
    """What the broker did with one order and how it said so; the order of telling is free."""

    updates: tuple[BrokerUpdate, ...]
    executed: int
    ended: bool
    listed: tuple[BrokerUpdate, ...] = ()
    """What the broker's list has of it, which is read to its end where fills have no name (R4)."""


Telling = tuple[History, Sequence[BrokerUpdate], Sequence[int]]
"""A history, its updates shuffled with some of them repeated, and how many of them come in each batch."""


@st.composite
def histories(draw: st.DrawFn) -> History:
    fills = draw(st.lists(st.integers(1, 60), max_size=4).filter(lambda parts: sum(parts) <= QUANTITY))
    sequenced = draw(st.booleans())
    other_names = draw(st.booleans())
    told = [update(sequenced, 1, E.NEW, B.NEW, 0)]
    cum, in_list = 0, []
    for n, part in enumerate(fills, 2):
        cum += part
        status = B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED
        stream = a_trade(f"s{n}", part, cum, order_status=status, seq=n if sequenced else None, transact_time=at(n))
        listed = a_trade(f"a{n}" if other_names else f"s{n}", part, cum, source=UpdateSource.BACKFILL)
        in_list.append(listed)
        told += draw(st.sampled_from([[stream], [listed], [stream, listed]]))
        if draw(st.booleans()):
            told.append(update(sequenced, n, E.ORDER_STATUS, status, cum, source=UpdateSource.QUERY))
    last = len(fills) + 2
    if draw(st.booleans()):
        pause = draw(st.sampled_from([B.SUSPENDED, B.PENDING_CANCEL]))
        told.append(update(True, last, E(pause.value), pause, cum))
    if draw(st.booleans()):
        told.append(update(True, last + 1, E.CANCEL_REJECTED, B.NEW if cum < QUANTITY else B.FILLED, cum))
    end = draw(_ends(last + 2, cum)) if cum < QUANTITY and draw(st.booleans()) else []
    stated = any(one.cum_quantity is not None for one in end)
    return History((*told, *end), cum, stated or cum == QUANTITY, tuple(in_list))


@st.composite
def _ends(draw: st.DrawFn, seq: int, cum: int) -> list[BrokerUpdate]:
    """The end of an order, perhaps without its quantity; then a query may have told it, or nobody knows it yet."""
    sequenced = draw(st.booleans())
    end = draw(st.sampled_from(_ENDS if cum else (*_ENDS, B.REJECTED)))
    said = update(sequenced, seq, E(end.value), end, cum)
    asked = update(sequenced, seq, E.ORDER_STATUS, end, cum, source=UpdateSource.QUERY, transact_time=at(seq))
    silent = replace(said, cum_quantity=None)
    return draw(st.sampled_from([[said], [said, asked], [silent, asked], [silent]]))


@st.composite
def reversed_histories(draw: st.DrawFn) -> History:
    """Fills, then chains of corrections and busts of some of them; the order lives on, or is over with what is left.

    The feeds that tell of a fill tell of its changes too, under names of their own or the stream's.
    """
    fills = draw(st.lists(st.integers(1, 60), min_size=1, max_size=3).filter(lambda parts: sum(parts) <= QUANTITY))
    sequenced, alike, over = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    cum, told, feeds, in_list = 0, [update(True, 1, E.NEW, B.NEW, 0)], [], []
    for n, part in enumerate(fills, 2):
        cum += part
        status = B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED
        seq = n if sequenced else None
        stream = a_trade(f"s{n}", part, cum, order_status=status, seq=seq, transact_time=at(10 * n))
        listed = replace(stream, exec_id=f"{'s' if alike else 'a'}{n}", **_LISTED)
        in_list.append(listed)
        feeds.append(draw(st.sampled_from([[stream], [listed], [stream, listed]])))
        told += feeds[-1]
    step, ended = 0, False
    for changed in draw(st.lists(st.integers(0, len(fills) - 1), min_size=1, max_size=2, unique=True)):
        refs, stands = {one.source: one.exec_id for one in feeds[changed]}, fills[changed]
        for _ in range(draw(st.integers(1, 3))):
            now = draw(st.integers(0, QUANTITY - cum + stands))
            cum, stands = cum - stands + now, now
            change = _change(sequenced, step, now, cum, over=over)
            copies = [_as_told(change, source, refs[source], alike=alike) for source in refs]
            told += copies
            ended |= over and UpdateSource.STREAM in refs
            step += 1
            if not now:
                break
            if draw(st.booleans()):  # A broker may name what it changed last, or what it filled at first.
                refs = {one.source: one.exec_id for one in copies}
    return History(tuple(told), cum, ended or cum == QUANTITY, tuple(in_list))


@st.composite
def unsteady_histories(draw: st.DrawFn) -> History:
    """Fills whose order snapshots on the stream are of another moment: of after later fills, or of before them all. The
    list has them all, in its own names or with a time before the stream's, and perhaps at other times."""
    prices = st.sampled_from([Decimal(9), Decimal(10)])
    fills = draw(st.lists(st.tuples(st.sampled_from([2, 3, 4, 5]), prices), min_size=1, max_size=4))
    behind, other_names, apart = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([0, 0.5, 90]))
    cums = [sum(part for part, _ in fills[: n + 1]) for n in range(len(fills))]
    told, in_list = [update(True, 1, E.NEW, B.NEW, 0)], []
    for n, ((part, price), cum) in enumerate(zip(fills, cums, strict=True)):
        seen = 0 if behind else draw(st.sampled_from(cums[n:]))
        words: dict[str, Any] = {"last_price": price, "transact_time": at(n + 2)}
        stream = a_trade(f"s{n}", part, seen, order_status=B.PARTIALLY_FILLED, seq=n + 2, **words)
        words["transact_time"] = at(n + 2 + apart)
        name = f"a{n}" if other_names else f"20260302::s{n}"
        in_list.append(a_trade(name, part, cum, source=UpdateSource.BACKFILL, **words))
        told += draw(st.sampled_from([[stream], [in_list[-1]], [stream, in_list[-1]]]))
    end = update(True, 20, E.CANCELED, B.CANCELED, cums[-1])
    return History((*told, end), cums[-1], True, tuple(in_list))


def crossed_reversals() -> dict[str, Telling]:
    """What was once told in an order that gave another state."""
    new = update(False, 1, E.NEW, B.NEW, 0)

    def filled(n: int, part: int, cum: int) -> tuple[BrokerUpdate, BrokerUpdate]:
        status = B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED
        stream = a_trade(f"s{n}", part, cum, order_status=status, transact_time=at(10 * n))
        return stream, replace(stream, exec_id=f"a{n}", **_LISTED)

    def changed(step: int, now: int, cum: int, of: str, listed_of: str = "") -> tuple[BrokerUpdate, BrokerUpdate]:
        change = _change(False, step, now, cum, over=False)
        return _as_told(change, UpdateSource.STREAM, of, alike=False), _as_told(
            change, UpdateSource.BACKFILL, listed_of, alike=False
        )

    (s2, a2), (s3, _), (s4, _) = filled(2, 1, 1), filled(3, 1, 2), filled(4, 1, 3)
    (x0, y0), (x1, y1), (x2, y2) = (changed(n, now, 2 + now, "s2", "a2") for n, now in enumerate((1, 2, 1)))
    corrected_back = History((new, s2, a2, s3, s4, x0, y0, x1, y1, x2, y2), 3, ended=False)

    _, listed = filled(2, 40, 40)
    (_, raised), (_, busted) = changed(0, 68, 68, "s2", "a2"), changed(1, 0, 0, "s2", "a2")
    only_listed = History((new, listed, raised, busted), 0, ended=False)

    (f2, g2), (f3, _) = filled(2, 40, 40), filled(3, 60, 100)
    (p0, q0), (p1, q1), (p2, q2) = (
        changed(0, 1, 61, "s2", "a2"),
        changed(1, 23, 83, "x0", "yx0"),
        changed(2, 40, 100, "x0", "yx0"),
    )
    (p3, _), (p4, _), (p5, _) = changed(3, 60, 100, "s3"), changed(4, 1, 41, "x3"), changed(5, 36, 76, "x4")
    reopened = History((new, f2, g2, f3, p0, q0, p1, q1, p2, q2, p3, p4, p5), 76, ended=False)
    return {
        "corrected back to what it was": (corrected_back, (new, s2, a2, s3, x0, y2, y0, x1, y1, x2, s4), ()),
        "busted before anything else is known": (only_listed, (raised, busted, new, listed), (1, 1, 2)),
        "reopened while a fill has no name": (
            reopened,
            (g2, f2, f3, new, q0, p2, f3, p3, p4, p1, q2, p5, q1, p0),
            (4, 2, 2, 2, 3),
        ),
    }


_LISTED: Final[dict[str, Any]] = {
    "order_status": None,
    "broker_seq": None,
    "order_quantity": None,
    "source": UpdateSource.BACKFILL,
}
"""What the activities do not say."""


def _change(sequenced: bool, step: int, now: int, cum: int, *, over: bool) -> BrokerUpdate:
    """A bust (nothing is left of the fill), or a correction to what it is `now`."""
    status = B.CANCELED if over else (B.FILLED if cum == QUANTITY else B.PARTIALLY_FILLED if cum else B.NEW)
    seq, kind = 10 + step, E.TRADE_CORRECT if now else E.TRADE_CANCEL
    said: dict[str, Any] = {"last_quantity": Decimal(now), "last_price": Decimal(9)} if now else {}
    named: dict[str, Any] = {"exec_id": f"x{step}", "order_quantity": Decimal(QUANTITY), "transact_time": at(10 * seq)}
    return update(sequenced, seq, kind, status, cum, **named, **said)


def _as_told(change: BrokerUpdate, source: UpdateSource, ref: str | None, *, alike: bool) -> BrokerUpdate:
    change = replace(change, exec_ref_id=ref)
    if source is UpdateSource.STREAM:
        return change
    name = change.exec_id if alike else f"y{change.exec_id}"
    return replace(change, exec_id=name, **_LISTED)


def update(
    sequenced: bool, seq: int, exec_type: ExecType, status: BrokerStatus, cum: int, **changes: object
) -> BrokerUpdate:
    said = an_update(exec_type, status, cum=cum, seq=seq if sequenced else None, transact_time=at(seq))
    return replace(said, **changes)  # type: ignore[arg-type]


@st.composite
def tellings(draw: st.DrawFn, of: st.SearchStrategy[History]) -> Telling:
    history = draw(of)
    repeated = draw(st.lists(st.sampled_from(history.updates), max_size=4))
    shuffled = draw(st.permutations([*history.updates, *repeated]))
    return history, shuffled, draw(st.lists(st.integers(1, 4), min_size=len(shuffled), max_size=len(shuffled)))
