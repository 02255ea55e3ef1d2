"""What a client does between a question and its answer, without doing it: generators that say what to send and how long
to pause, and are told how it went. Both clients run the same ones, over either transport."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

from closeflow_client.calls import Answered, Call, Change, CloseMany, GetCloseRequest, Outcome, Reply
from closeflow_client.close import Close
from closeflow_client.errors import (
    TEMPORARY,
    AnswerUnreadable,
    CloseflowError,
    ConnectionFailed,
    NotFinal,
    OutcomeUnknown,
)
from closeflow_client.retry import Failure, Unanswered, may_be_accepted, wait_before_retry
from closeflow_client.values import CloseRequest, read_close_request

Result = TypeVar("Result")

BATCH: Final = 500
"""As many closes as a `:batchClose` takes, in at most 1 MiB."""
_BATCH_BYTES: Final = 900_000
_CLOSE_BYTES: Final = 1_000
"""What a close takes at most, without its reason."""
_LONGEST_WAIT_S: Final = 30
_LEAST_WAIT_S: Final = 0.5
ENDED: Final = Unanswered("the stream ended before the close request did", sent=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout_s` bounds an attempt; none begins later than `retry_for_s` after the first. `now` and `chance` are where
    time and jitter come from."""

    timeout_s: float
    retry_for_s: float
    now: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Send:
    """Make one attempt of the call within `timeout_s`, with the newest token, and tell how it went."""

    call: Call[Any]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Let so many seconds pass."""

    seconds: float


Steps = Generator[Send | Pause, Reply | None, Result]


class Patience:
    """How long one call is retried, and what is raised when it is no longer."""

    def __init__(self, limits: Limits, *, unknown: str = "", key: str | None = None) -> None:
        self._limits, self._unknown, self._key = limits, unknown, key
        self._since = limits.now()
        self._attempts = 0
        self._may_be_accepted = False

    def wait_s(self, failure: Failure, *, chance: float) -> float:
        """The pause before the next attempt. Raises the error where there is none."""
        self._attempts += 1
        self._may_be_accepted |= bool(self._unknown) and may_be_accepted(failure)
        elapsed_s = self._limits.now() - self._since
        wait_s = wait_before_retry(
            failure,
            attempts=self._attempts,
            elapsed_s=elapsed_s,
            retry_for_s=self._limits.retry_for_s,
            chance=chance,
        )
        if wait_s is None:
            self._give_up(failure, elapsed_s)
        return wait_s

    def _give_up(self, failure: Failure, elapsed_s: float) -> NoReturn:
        cause = failure if isinstance(failure, CloseflowError) else ConnectionFailed(failure.message)
        cause.key = self._key
        cause.outcome_unknown = self._may_be_accepted
        if self._may_be_accepted and (isinstance(failure, Unanswered) or failure.status in TEMPORARY):
            message = f"{self._unknown} (after {self._attempts} attempts in {elapsed_s:.1f} s: {cause.message})"
            raise OutcomeUnknown(
                message, status=cause.status, key=self._key, trace_id=cause.trace_id, outcome_unknown=True
            ) from cause
        raise cause


def exchange(call: Call[Result], limits: Limits) -> Steps[Result]:
    """Send the call until it is answered, and read the answer. Raises CloseflowError."""
    patience = Patience(limits, unknown=call.unknown, key=call.key)
    while True:
        reply = yield Send(call, limits.timeout_s + call.waits_s)
        assert reply is not None
        if isinstance(reply, Answered):
            return _read(call, reply)
        yield Pause(patience.wait_s(reply, chance=limits.chance()))


def close_many(closes: Sequence[Close], limits: Limits) -> Steps[list[Outcome]]:
    """Close all of them, in batches; every close has a key. One outcome for each, in order: nothing is raised for what
    the server answered or did not answer. Only what may be retried is sent again."""
    outcomes: list[Outcome] = []
    for some in batches_of(closes):
        outcomes += yield from _batch(some, limits)
    return outcomes


def batches_of(closes: Sequence[Close]) -> Iterator[Sequence[Close]]:
    """In their order, as many at a time as one call takes."""
    first, size = 0, 0
    for n, one in enumerate(closes):
        needs = _CLOSE_BYTES + len((one.reason or "").encode())
        if n - first == BATCH or size + needs > _BATCH_BYTES:
            yield closes[first:n]
            first, size = n, 0
        size += needs
    if first < len(closes):
        yield closes[first:]


def _batch(closes: Sequence[Close], limits: Limits) -> Steps[list[Outcome]]:
    outcomes: dict[int, Outcome] = {}
    patience = [Patience(limits, unknown=CloseMany.unknown, key=one.key) for one in closes]
    pending = list(range(len(closes)))
    while pending:
        call = CloseMany(tuple(closes[n] for n in pending))
        reply = yield Send(call, limits.timeout_s)
        assert reply is not None
        chance = limits.chance()  # One for all of them: they go together.
        waits: dict[int, float] = {}
        for n, found in zip(pending, _outcomes(call, reply), strict=True):
            if isinstance(found, CloseRequest):
                outcomes[n] = found
                continue
            try:
                waits[n] = patience[n].wait_s(found, chance=chance)
            except CloseflowError as error:
                outcomes[n] = error
        pending = list(waits)
        if waits:
            yield Pause(max(waits.values()))
    return [outcomes[n] for n in range(len(closes))]


def _outcomes(call: CloseMany, reply: Reply) -> Sequence[Outcome | Unanswered]:
    """For each close how it went; what happened to the whole batch happened to each of them."""
    if isinstance(reply, Answered):
        try:
            return call.read(reply)
        except AnswerUnreadable as error:
            error.status, error.trace_id = reply.status, reply.trace_id
            reply = error
    if isinstance(reply, Unanswered):
        return [reply] * len(call.closes)
    return [reply.copy() for _ in call.closes]


def wait_until_final(request_id: UUID, limits: Limits, *, timeout_s: float | None) -> Steps[CloseRequest]:
    """Ask until the close request is over. Raises NotFinal when that takes longer than `timeout_s` seconds."""
    end = math.inf if timeout_s is None else limits.now() + timeout_s
    request = yield from exchange(GetCloseRequest(request_id), limits)
    while not request.final:
        asked_at = limits.now()
        left_s = end - asked_at
        if left_s <= 0:
            error = NotFinal(f"close request {request_id} was {request.close_request_status} after {timeout_s} s")
            error.request = request
            raise error
        wait_s = math.ceil(min(left_s, _LONGEST_WAIT_S))
        before = request
        within = replace(limits, retry_for_s=min(limits.retry_for_s, left_s))
        request = yield from exchange(GetCloseRequest(request_id, wait_s), within)
        if request == before and limits.now() - asked_at < _LEAST_WAIT_S:
            yield Pause(min(_LEAST_WAIT_S, left_s))  # A server that is stopping does not wait.
    return request


class Watching:
    """What is kept while a close request is watched over one connection after another."""

    def __init__(self, request_id: UUID, limits: Limits) -> None:
        self.request_id = request_id
        self.last_event_id: str | None = None
        self._limits = limits
        self._patience: Patience | None = None

    def heard(self, change: Change | None) -> CloseRequest | None:
        """The state to show, or None for one that was shown and for a sign of life."""
        self._patience = None
        if change is None or (change.event_id and change.event_id == self.last_event_id):
            return None
        self.last_event_id = change.event_id or self.last_event_id
        return read_close_request(change.values)

    def pause_s(self, failure: Failure) -> float | None:
        """Seconds before the next connection, after this one failed or ended (`ENDED`). None where the server goes on
        ending it: the request is over in a way that this client does not know. Raises the error when it is given up."""
        if self._patience is None:
            self._patience = Patience(self._limits)
        try:
            return self._patience.wait_s(failure, chance=self._limits.chance())
        except ConnectionFailed:
            if failure is ENDED:
                return None
            raise


def _read(call: Call[Result], answer: Answered) -> Result:
    try:
        return call.read(answer)
    except AnswerUnreadable as error:
        error.key, error.status, error.trace_id = call.key, answer.status, answer.trace_id
        error.outcome_unknown = bool(call.unknown)
        raise
