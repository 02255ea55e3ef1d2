"""What an answer of Alpaca's proves: a pure function of the call's outcome.

A refusal counts only when Alpaca itself says it, in its own JSON, and is told apart by code *and* message: one code
(40310000) stands for closed markets, wash trades and held quantities alike. Whatever is not recognised proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from closeflow.broker.alpaca import parse
from closeflow.broker.alpaca.wire import NoReply, NotWritten, Outcome, Reply, read_json
from closeflow.domain.close.ticks import BAD_INCREMENT
from closeflow.domain.model import BrokerUpdate, RejectClass, UpdateSource
from closeflow.domain.reasons import BELOW_MINIMUM_NOTIONAL
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelAnswer,
    CancelRefused,
    DuplicateId,
    ForeignOrder,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Refused,
    SubmitAnswer,
    Unanswered,
)
from closeflow.domain.sending.ticket import Ticket

FORBIDDEN: Final = 40310000
INVALID: Final = 42210000
BAD_REQUEST: Final = 40010001
PATTERN_DAY_TRADING: Final = 40310100
NOT_FOUND: Final = 40410000

_REFUSING: Final = frozenset({403, 422})


@dataclass(frozen=True, slots=True)
class Rule:
    """A refusal is of this class if its code is among `codes` and `message` is found in its words."""

    codes: frozenset[int]
    message: re.Pattern[str]
    reject_class: RejectClass
    name: str
    """Our name of the reason: what `reject_code` says."""


def _rule(codes: set[int], message: str, reject_class: RejectClass, name: str) -> Rule:
    return Rule(frozenset(codes), re.compile(message, re.IGNORECASE), reject_class, name)


_ANY: Final = {FORBIDDEN, INVALID, BAD_REQUEST}
_RETRYABLE: Final = RejectClass.RETRYABLE
_TERMINAL: Final = RejectClass.TERMINAL

_INCREMENT: Final = r"increment|tick size|minimum (pric|tick)|multiple of|decimal place"

_SIZE: Final = r"(cost basis|notional|\bqty\b|quantity|\b(order|trade) (size|value|amount)|\b(size|value|amount)\b)"
_MORE: Final = r"(more|greater|larger|higher|above|over)"
_AT_MOST: Final = (
    rf"{_SIZE}.*(<|\bmax|at most|too (large|big|high|much)|up to\b|exceeds\b|exceeded|"
    rf"not? (exceed|(be )?{_MORE})|cannot (exceed|be {_MORE})|"
    rf"(must|should|has to|needs? to|to) be (strictly )?(less|lower|smaller|below|under))|"
    rf"(exceed\w*|above|over|more than|greater than|larger than) .*(max|limit).*{_SIZE}|max\w* (allowed )?{_SIZE}"
)
"""Before the words for too little: an order that is too large is no dust."""
_AT_LEAST: Final = (
    r"(cost basis|notional|order (value|amount)).*(minim|>|at least|too (small|low)|"
    r"must (not be (less|lower|smaller|below)|exceed|be (more|greater|larger|higher|above)))|"
    r"minim(al|um) (order )?(amount|notional|size|value)"
)
_COIN: Final = r"insufficient balance for (?!(usd|order|this|the|trade)\b)\w"
_OPPOSITE: Final = r"opposite side|cannot open a (long|short) (buy|sell) while|(long|short) (buy|sell) order is open"
_EXTENDED: Final = r"extended.(trading.)?hours|(pre|after).?market|after.hours|overnight (session|trading)"

REFUSALS: Final[tuple[Rule, ...]] = (
    _rule(_ANY, r"market is closed|market hours|outside.*trading hours", _RETRYABLE, "market_closed"),
    _rule(_ANY, _EXTENDED, _RETRYABLE, "extended_hours"),
    _rule(_ANY, r"\bhalt(ed|s)?\b|trading pause|volatility pause|\bluld\b", _RETRYABLE, "symbol_halted"),
    _rule(_ANY, r"price band|limit up|limit down|too far (away )?from", _RETRYABLE, "price_band"),
    _rule({FORBIDDEN}, r"held.for.orders", _RETRYABLE, "held_for_orders"),
    _rule(_ANY, _OPPOSITE, _RETRYABLE, "opposite_side_open"),
    _rule({FORBIDDEN}, r"wash trade", _TERMINAL, "wash_trade"),
    _rule({PATTERN_DAY_TRADING, FORBIDDEN}, r"pattern day trad|\bpdt\b", _TERMINAL, "pattern_day_trading"),
    _rule(_ANY, r"could not find asset|(asset|symbol).*not found|invalid symbol", _TERMINAL, "unknown_symbol"),
    _rule(_ANY, r"position does not exist|no (such|open) position|uncovered|(to|sold) short", _TERMINAL, "no_position"),
    _rule(_ANY, r"position intent mismatch, inferred: \w+_to_open", _TERMINAL, "no_position"),
    _rule({FORBIDDEN}, r"insufficient (qty|quantity)", _TERMINAL, "no_position"),
    _rule({FORBIDDEN}, _COIN, _TERMINAL, "insufficient_coin_balance"),
    _rule({FORBIDDEN}, r"insufficient .*(buying power|balance)", _TERMINAL, "insufficient_funds"),
    _rule(_ANY, r"fractionable|fraction\w* .*not (supported|allowed|enabled)", _TERMINAL, "not_fractionable"),
    _rule(_ANY, _AT_MOST, _TERMINAL, "over_order_limit"),
    _rule(_ANY, _AT_LEAST, _TERMINAL, BELOW_MINIMUM_NOTIONAL),
    _rule(_ANY, r"restricted|not (tradable|active|allowed|enabled|eligible)|expire", _TERMINAL, "restricted"),
    _rule({INVALID, BAD_REQUEST}, r"\bqty\b|quantity|fractional", _TERMINAL, "bad_quantity"),
    _rule(_ANY, _INCREMENT, _RETRYABLE, BAD_INCREMENT),
    _rule({INVALID, BAD_REQUEST}, r"limit.price", _TERMINAL, "bad_price"),
)
"""First match wins. A refusal without a match is terminal for sending, and an incident."""

_DUPLICATE: Final = re.compile(r"client.order.id must be unique", re.IGNORECASE)
_BLOCKED: Final = re.compile(
    r"account is (currently )?(blocked|suspended|inactive|not active)|(account|trading|user) .*blocked|"
    r"trading is suspended|request is not authorized",
    re.IGNORECASE,
)
_NO_ORDERS: Final = re.compile(
    r"(^|\b(new|all) )orders (are|have been) (currently )?(being )?(rejected|disabled|suspended|paused|not accepted)|"
    r"by user request|"
    r"(account|user) (is|has been) (currently )?(restricted|locked|disabled|closed|frozen|under review)\W*$|"
    r"(account|user) is not (currently )?(allowed|permitted|authorized|approved|enabled) to trade\W*$|"
    r"trading (is|has been) (halted|disabled|suspended|paused) for (this|the|your) account|"
    r"(service|system|trading|broker) is (under maintenance|temporarily (unavailable|disabled))|too many requests",
    re.IGNORECASE,
)
"""Words about the account or the broker that name nothing of the order."""
_BAD_CREDENTIALS: Final = re.compile(r"forbidden\.?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Complaint:
    """Alpaca's own error body."""

    code: int | None
    message: str
    details: Mapping[str, object]

    @property
    def words(self) -> str:
        """With what it gives as its reason besides: of a wash trade that the opposite order is there."""
        return f"{self.message}; {self.details.get('reject_reason', '')}"

    def __str__(self) -> str:
        return self.message if self.code is None else f"{self.code}: {self.message}"


def submit_answer(outcome: Outcome, *, ticket: Ticket, of: parse.Account) -> SubmitAnswer:
    """A 2xx counts only with the very order that was sent: a proxy's page, or another's order, proves nothing."""
    if not isinstance(outcome, Reply):
        return _no_reply(outcome)
    if 200 <= outcome.status < 300:
        return _acknowledged(outcome, of=of, source=UpdateSource.SUBMIT, ticket=ticket)
    elsewhere = _not_accepted(outcome)
    if elsewhere is not None:
        return elsewhere
    complaint = _complaint(outcome)
    if complaint is None or outcome.status not in _REFUSING:
        return _unanswered(outcome)
    if _DUPLICATE.search(complaint.message):  # Under any code: looking it up is right even if this is wrong.
        return DuplicateId()
    # Gateways and firewalls say `{"message": ...}` too; only Alpaca gives its refusals a code.
    return _unanswered(outcome) if complaint.code is None else refusal(complaint)


def look_up_answer(outcome: Outcome, *, of: parse.Account, client_order_id: str | None) -> LookUpAnswer:
    """`client_order_id` is what was asked for, or None when the order was asked for by the broker's id."""
    if not isinstance(outcome, Reply):
        return _no_reply(outcome)
    if outcome.status == 200:
        return _acknowledged(outcome, of=of, source=UpdateSource.QUERY, client_order_id=client_order_id)
    if _says_order_not_found(outcome):
        return NotFound()
    return _not_accepted(outcome) or _unanswered(outcome)


def cancel_answer(outcome: Outcome) -> CancelAnswer:
    """A refusal counts only with Alpaca's own code; the order's state is in none of these answers."""
    if not isinstance(outcome, Reply):
        return _no_reply(outcome)
    if outcome.status == 204:
        return CancelAccepted()
    if _says_order_not_found(outcome):
        return NotFound()
    elsewhere = _not_accepted(outcome)
    if elsewhere is not None:
        return elsewhere
    complaint = _complaint(outcome)
    if complaint is not None and complaint.code is not None and outcome.status in _REFUSING:
        return CancelRefused(str(complaint))
    return _unanswered(outcome)


def refusal(complaint: Complaint) -> Refused:
    """Sort a definitive refusal by the table."""
    if _holds_enough(complaint):
        return Refused("held_for_orders", RejectClass.RETRYABLE, str(complaint))
    for rule in REFUSALS:
        if complaint.code in rule.codes and rule.message.search(complaint.words):
            return Refused(rule.name, rule.reject_class, str(complaint))
    return Refused(f"alpaca_{complaint.code}", RejectClass.TERMINAL, str(complaint), mapped=False)


def _holds_enough(complaint: Complaint) -> bool:
    """ "Insufficient qty" while other orders hold some of the position: it comes back when they are done."""
    if complaint.code != FORBIDDEN or "insufficient qty" not in complaint.message.lower():
        return False
    try:
        return (parse.optional_number(complaint.details, "held_for_orders") or 0) > 0
    except parse.Malformed:
        return False


def _no_reply(outcome: NotWritten | NoReply) -> NotSent | NotAccepted | Unanswered:
    match outcome:
        case NoReply(reason):
            return Unanswered(reason)
        case NotWritten(reason, retry_after_s=None, withheld=withheld):
            return NotSent(reason, withheld)
        case NotWritten(reason, retry_after_s):
            return NotAccepted(reason, retry_after_s)


def _unanswered(reply: Reply) -> Unanswered:
    start = reply.body[:200].decode(errors="replace")
    return Unanswered(f"HTTP {reply.status}: {start}" if start else f"HTTP {reply.status} without a body")


def _acknowledged(
    reply: Reply,
    *,
    of: parse.Account,
    source: UpdateSource,
    ticket: Ticket | None = None,
    client_order_id: str | None = None,
) -> Acknowledged | Unanswered:
    update = _order(reply, of=of, source=source)
    if isinstance(update, Unanswered):
        return update
    expected = ticket.client_order_id if ticket is not None else client_order_id
    if expected is not None and update.client_order_id != expected:
        return Unanswered(f"asked about {expected}, answered about {update.client_order_id}")
    if ticket is not None and (update.symbol, update.side) != (ticket.symbol, ticket.side):
        return Unanswered(f"sent {ticket.side} {ticket.symbol}, answered {update.side} {update.symbol}")
    return Acknowledged(update)


def _order(reply: Reply, *, of: parse.Account, source: UpdateSource) -> BrokerUpdate | Unanswered:
    order: parse.Json = {}
    try:
        order = parse.as_object(read_json(reply.body), "the answer")
        return parse.order_update(order, of=of, source=source, received_at=reply.received_at)
    except ValueError as error:
        unreadable = ForeignOrder if parse.is_foreign(order) else Unanswered
        return unreadable(f"HTTP {reply.status} with an unreadable order: {error}")


def _not_accepted(reply: Reply) -> NotAccepted | None:
    """Answers that are about us and not about the order: no order of the account would have passed."""
    if reply.status == 429:
        return NotAccepted("rate limited", reply.retry_after_s)
    if reply.status == 401:
        return NotAccepted("the broker does not accept our key (401)", reply.retry_after_s, credentials=True)
    complaint = _complaint(reply) if reply.status in _REFUSING else None
    if complaint is None:
        return None
    if reply.status != 403:
        return _no_orders(reply, complaint)
    # A bad key gets `{"message": "forbidden."}` with 403 and no code.
    bad_key = complaint.code is None and _BAD_CREDENTIALS.fullmatch(complaint.message)
    if bad_key or _BLOCKED.search(complaint.message):
        return NotAccepted(str(complaint), reply.retry_after_s, credentials=True)
    return _no_orders(reply, complaint)


def _no_orders(reply: Reply, complaint: Complaint) -> NotAccepted | None:
    about_one = re.search(r"\b(symbol|asset)\b", complaint.message, re.IGNORECASE)
    if complaint.code is None or about_one or not _NO_ORDERS.search(complaint.message):
        return None
    return NotAccepted(str(complaint), reply.retry_after_s, account_wide=True)


def _says_order_not_found(reply: Reply) -> bool:
    """Also a wrong path gets 404, so only Alpaca's own words about an order are evidence (rule R6)."""
    complaint = _complaint(reply) if reply.status == 404 else None
    return complaint is not None and complaint.code == NOT_FOUND and "order not found" in complaint.message.lower()


def says_position_not_found(reply: Reply) -> bool:
    """So the account holds nothing of the symbol; a 404 of anybody else is no such word."""
    complaint = _complaint(reply) if reply.status == 404 else None
    return complaint is not None and complaint.code == NOT_FOUND and "position" in complaint.message.lower()


def says_instrument_not_found(reply: Reply) -> bool:
    """A wrong path or a proxy is not-found as well: only the words about an asset or contract prove anything."""
    complaint = _complaint(reply) if reply.status == 404 else None
    if complaint is None or complaint.code != NOT_FOUND:
        return False
    message = complaint.message.lower()
    return "endpoint" not in message and ("asset" in message or "contract" in message)


def _complaint(reply: Reply) -> Complaint | None:
    try:
        body = read_json(reply.body)
    except ValueError:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return None
    code = body.get("code")
    return Complaint(code if type(code) is int else None, body["message"], body)
