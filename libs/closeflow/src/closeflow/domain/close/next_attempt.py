"""The next attempt of a close that waits for it (C8), and the event of one that nobody has planned (C3, zombies)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from closeflow.domain import trading_controls
from closeflow.domain.close import deferral, pricing
from closeflow.domain.close.moves import Conditions, Moved, PutOff, Waits, with_request
from closeflow.domain.close.outcome import conclude_position, publish_position
from closeflow.domain.close.passing_refusals import costs_a_retry, waits_since
from closeflow.domain.frozen import replace
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import (
    ZERO,
    Book,
    CloseRequest,
    RequestStatus,
)
from closeflow.domain.outbox.events import submit_event
from closeflow.domain.position import exposure
from closeflow.domain.retry import FARTHEST, is_due, look_again_by

_LOOK_AGAIN: Final = timedelta(seconds=1)


def emit_again_if_due(
    book: Book, request: CloseRequest, *, now: datetime, resend_after: timedelta, conditions: Conditions | None
) -> Moved | PutOff | Waits:
    """A deferral that is due (C3), or a zombie: nobody planned it although its event should long be there."""
    if not is_due(request.next_attempt_at or request.created_at + resend_after, now):
        return Waits("not due")
    lasts = _deferral_lasts(book, request, conditions, now=now) if conditions is not None else None
    if lasts is not None:
        return lasts
    emission = request.emission + 1
    again = replace(request, emission=emission, next_attempt_at=now + _pause_after(emission, resend_after))
    event = submit_event(again, exposure.owed(book, again), at=now)
    return Moved(with_request(book, again), (event,), "emitted_again")


def _deferral_lasts(
    book: Book, request: CloseRequest, conditions: Conditions, *, now: datetime
) -> PutOff | Waits | None:
    """A reason that can be seen from here to last needs no event to be looked at."""
    resumes_at = conditions.sends_resume_at
    match request.reason:
        case trading_controls.TRADING_HALTED if conditions.halted:
            return Waits("halted")
        case deferral.NO_MARKET_CLOCK if conditions.clock is None:
            return Waits("market clock unknown")
        case deferral.BROKER_UNAVAILABLE if resumes_at is not None and not is_due(resumes_at, now):
            return _put_off(book, request, resumes_at, "circuit breaker open", now=now)
        case deferral.MARKET_CLOSED:
            until = _opens_at(request, conditions.clock, now=now)
            return None if until is None else _put_off(book, request, until, "market closed", now=now)
        case _:
            return None


def _pause_after(emission: int, resend_after: timedelta) -> timedelta:
    """Twice as long after each emission, so that an outage in which none of them leaves does not fill the outbox.

    The planner's answer to an emission sets its own time, so what is deferred or halted is asked for again when that
    says. Only after many such answers is an emission that nobody answers repeated later than it need be.
    """
    return min(FARTHEST, resend_after * (1 << min(emission - 1, 16)))


def retry_if_due(
    book: Book, request: CloseRequest, *, now: datetime, resend_after: timedelta, conditions: Conditions | None
) -> Moved | PutOff | Waits:
    """C8 with P5: the next attempt, for what is owed."""
    if not request.auto_retry:
        return Waits("an operator has to retry it")
    if request.next_attempt_at is not None and not is_due(request.next_attempt_at, now):
        return Waits("not due")
    quantity = exposure.owed(book, request)
    if quantity <= ZERO:
        return Waits("nothing is owed")
    held = _held_back(book, request, conditions, now=now) if conditions is not None else None
    if held is not None:
        return held
    orders = book.orders_of(request.id)
    spent = bool(orders) and costs_a_retry(book, request, orders[-1])
    again = replace(
        request,
        status=RequestStatus.PENDING,
        attempt=request.attempt + 1,
        retry_count=request.retry_count + spent,
        emission=1,
        next_attempt_at=now + resend_after,
        deferred_since=waits_since(orders),
        reason=None,
    )
    concluded, _ = conclude_position(with_request(book, again), now=now)
    concluded, events = publish_position(book, concluded, again, now=now)
    return Moved(concluded, (submit_event(again, quantity, at=now), *events), "retried")


def _held_back(book: Book, request: CloseRequest, conditions: Conditions, *, now: datetime) -> PutOff | Waits | None:
    if conditions.halted:
        return Waits("halted")
    if pricing.market_hours(request.asset_type) and conditions.clock is None:
        return Waits("market clock unknown")
    opens_at = _opens_at(request, conditions.clock, now=now)
    if opens_at is not None:
        return _put_off(book, request, opens_at, "market closed", now=now)
    resumes_at = conditions.sends_resume_at
    if resumes_at is not None and not is_due(resumes_at, now):
        return _put_off(book, request, resumes_at, "circuit breaker open", now=now)
    return None


def _opens_at(request: CloseRequest, clock: MarketClock | None, *, now: datetime) -> datetime | None:
    """When the market opens that the request waits for; None if it is open, unknown, or never closes."""
    if clock is None or clock.is_open or not pricing.market_hours(request.asset_type):
        return None
    return now + max(clock.next_open - clock.at, _LOOK_AGAIN)


def _put_off(book: Book, request: CloseRequest, until: datetime, reason: str, *, now: datetime) -> PutOff:
    until = look_again_by(until, now)
    return PutOff(with_request(book, replace(request, next_attempt_at=until)), until, reason)
