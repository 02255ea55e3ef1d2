"""Pages of Alpaca's activities → what the domain understands. Pure; none of them is a reason to read no other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

import structlog

from closeflow.broker.alpaca import parse
from closeflow.broker.alpaca.reading import last_id
from closeflow.broker.protocol import ExecutionPage
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import ZERO, BrokerUpdate
from closeflow.domain.operator.adjust import Ending
from closeflow.domain.operator.non_trade_activity import ExecutionCharge, NonTrade
from closeflow.domain.sending.broker_answers import ForeignOrder, Unanswered

log = structlog.get_logger()

PER_PAGE: Final = 100
ENDINGS: Final = {
    "OPASN": Ending.ASSIGNED,
    "OPEXC": Ending.EXERCISED,
    "OPEXP": Ending.EXPIRED,
    "OPXRC": Ending.EXERCISED,
    # Splits, mergers, spin-offs, and changes of the name or symbol.
    **dict.fromkeys(("MA", "NC", "REORG", "SC", "SPIN", "SPLIT", "SSO", "SSP"), Ending.REORGANIZED),
}
CHARGES: Final = {"COMM": "commission", "FEE": "fees"}
"""What an activity of the type that names an execution charges for it. Alpaca documents FEE, without naming one; COMM
is a commission that is stated after its trade."""
MONEY_ONLY: Final = ("CFEE", "COMM", "CSD", "CSW", "DIV", "FEE", "INT", "JNLC", "PTC")
"""How the types of `NonTrade.money_only` begin."""


def page_after(after: datetime, page: str | None) -> dict[str, str]:
    """What asks for one page, oldest first."""
    params = {"after": after.isoformat(), "direction": "asc", "page_size": str(PER_PAGE)}
    return params if page is None else {**params, "page_token": page}


def next_page(listed: Sequence[object], page: str | None) -> str | None:
    """The token of the page after this one; None where this was the last. Raises BrokerUnavailable where a full page
    does not say how the list goes on."""
    return last_id([one for one in listed if isinstance(one, dict)], page) if len(listed) >= PER_PAGE else None


def execution_page(
    listed: Sequence[parse.Json],
    names: Mapping[str, parse.OrderName | Unanswered],
    *,
    page: str | None,
    of: parse.Account,
    received_at: datetime,
) -> ExecutionPage:
    """FILL activities as executions. `names` has what is known of their orders by the broker's id; one that it does not
    have is denied by the broker."""
    updates: list[BrokerUpdate] = []
    passed_over: list[str] = []
    unnamed: list[str] = []
    doubtful: set[str] = set()
    for activity in listed:
        activity_id, order = str(activity.get("id")), names.get(str(activity.get("order_id")))
        try:
            if isinstance(order, Unanswered):
                raise parse.Malformed(order.reason)
            if order is None:
                raise parse.Malformed("the broker does not know its order")
            updates.append(parse.fill_activity(activity, of=of, order=order, received_at=received_at))
        except parse.Malformed as error:
            if _is_foreign(order):
                log.warning("foreign_execution_passed_over", activity_id=activity_id, reason=str(error))
                continue
            # It must not hold up the others for ever. If it is a fill of ours, its order states more than we can
            # name, and that gap is an incident (rule R4).
            log.error("execution_left_out", activity_id=activity_id, reason=str(error))
            (unnamed if isinstance(order, Unanswered) else passed_over).append(activity_id)
            doubtful |= _spellings(str(activity.get("symbol") or ""))
    return ExecutionPage(
        updates=tuple(updates),
        next_page=next_page(listed, page),
        passed_over=tuple(passed_over),
        unnamed=tuple(unnamed),
        doubtful=frozenset(doubtful),
        through=max(filter(None, (parse.aside_time(one, "transaction_time") for one in listed)), default=None),
    )


def _is_foreign(order: parse.OrderName | Unanswered | None) -> bool:
    if isinstance(order, parse.OrderName):
        return parse_client_order_id(order.client_order_id) is None
    return isinstance(order, ForeignOrder)


def _spellings(stated: str) -> set[str]:
    """Every symbol of ours that a stated one may be: activities leave out the slash of a pair, and do not say that it
    is one."""
    bare = stated.replace("/", "")
    return {bare, *(f"{bare[:n]}/{bare[n:]}" for n in range(1, min(len(bare), 32)))}


def non_trade(item: object) -> NonTrade:
    """Whatever can be read of it. One without an id is named by its content, so that it is told once."""
    of: parse.Json = item if isinstance(item, dict) else {}
    activity_id = _words(of, "id") or f"unreadable-{hashlib.sha256(repr(item).encode()).hexdigest()[:16]}"
    kind = _words(of, "activity_type") or ""
    return NonTrade(
        activity_id=activity_id,
        kind=kind,
        symbol=_words(of, "symbol"),
        quantity=parse.aside(of, "qty"),
        day=_day(_words(of, "date")) or _day(activity_id[:8]),
        status=_words(of, "status"),
        description=_words(of, "description"),
        ending=ENDINGS.get(kind),
        money_only=kind.startswith(MONEY_ONLY),
        charge=_charge(of, kind),
    )


def _charge(of: parse.Json, kind: str) -> ExecutionCharge | None:
    """Where the activity says of which execution it is; `net_amount` is signed as the account's cash changes."""
    amount, what = parse.aside(of, "net_amount"), CHARGES.get(kind)
    order, execution = _words(of, "order_id"), _words(of, "execution_id")
    if what is None or not amount or order is None or execution is None:
        return None
    return ExecutionCharge(
        broker_order_id=order,
        exec_id=execution,
        commission=-amount if what == "commission" else ZERO,
        fees=-amount if what == "fees" else ZERO,
        currency=_words(of, "currency"),
        at=parse.aside_time(of, "created_at"),
    )


def _words(of: parse.Json, name: str) -> str | None:
    value = of.get(name)
    return value.replace("\x00", "\u2400") if isinstance(value, str) and value else None


def _day(text: str | None) -> date | None:
    """Of a date or a time; an activity's id begins with its time, without separators."""
    try:
        return None if text is None else date.fromisoformat(text[:10])
    except ValueError:
        return None
