"""What is sent, how long is paused, and what comes out, without a network and without time passing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest

from closeflow_client import Close, CloseflowError, CloseRequest, ConnectionFailed, NotFinal, OutcomeUnknown
from closeflow_client.calls import (
    Answered,
    Call,
    CancelCloseRequest,
    Change,
    CloseMany,
    ClosePosition,
    GetCloseRequest,
    Reply,
)
from closeflow_client.errors import (
    AnswerUnreadable,
    InternalError,
    Overloaded,
    PositionAlreadyClosing,
    Unauthenticated,
    Unavailable,
    error_of,
)
from closeflow_client.exchange import (
    ENDED,
    Limits,
    Pause,
    Send,
    Steps,
    Watching,
    batches_of,
    close_many,
    exchange,
    wait_until_final,
)
from closeflow_client.rest.messages import request_of
from closeflow_client.retry import Unanswered

from .answers import REQUEST_ID, TRACE_ID, request_body

Result = TypeVar("Result")
LOST = Unanswered("ReadError: reset", sent=True)
REFUSED = Unanswered("ConnectError: refused", sent=False)
ID = UUID(REQUEST_ID)
CLOSE = ClosePosition(Close(7, key="k"))


@dataclass
class Played:
    """Runs steps against replies that are given, on a clock that only pauses and attempts move."""

    replies: Iterable[Reply]
    attempt_s: float = 0.0
    now_s: float = 100.0
    chance: float = 1.0
    sent: list[Call[Any]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def limits(self, retry_for_s: float = 30.0) -> Limits:
        return Limits(timeout_s=10.0, retry_for_s=retry_for_s, now=lambda: self.now_s, chance=lambda: self.chance)

    def run(self, steps: Steps[Result]) -> Result:
        replies = iter(self.replies)
        reply: Reply | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            match step:
                case Send(call=call, timeout_s=timeout_s):
                    self.sent.append(call)
                    self.timeouts.append(timeout_s)
                    self.now_s += self.attempt_s
                    reply = next(replies)
                case Pause(seconds=seconds):
                    self.pauses.append(seconds)
                    self.now_s += seconds
                    reply = None


def refused(code: str, status: int, **facts: Any) -> CloseflowError:
    return error_of(code, f"It is {code}.", status=status, trace_id=TRACE_ID, **facts)


def forever(reply: Reply) -> Iterable[Reply]:
    while True:
        yield reply.copy() if isinstance(reply, CloseflowError) else reply


ACCEPTED = Answered(request_body())


def test_an_answer_needs_one_attempt() -> None:
    played = Played([ACCEPTED])
    found = played.run(exchange(CLOSE, played.limits()))
    assert (found.key, found.replayed, found.position_id) == ("k", False, 7)
    assert (played.sent, played.pauses, played.timeouts) == ([CLOSE], [], [10.0])


def test_every_attempt_is_the_same_call() -> None:
    played = Played([LOST, REFUSED, refused("unavailable", 503, retry_after_s=2.0), Answered(request_body(), True)])
    assert played.run(exchange(CLOSE, played.limits())).replayed is True
    assert all(call is CLOSE for call in played.sent)
    assert played.pauses == pytest.approx([0.1, 0.2, 2.4])


def test_a_refusal_is_raised_at_once_with_its_key() -> None:
    played = Played([refused("position_already_closing", 409, should_retry=True)])
    with pytest.raises(PositionAlreadyClosing) as caught:
        played.run(exchange(CLOSE, played.limits()))
    error = caught.value
    assert (error.key, error.trace_id, error.outcome_unknown, played.pauses) == ("k", TRACE_ID, False, [])


def test_no_answer_to_the_end_is_an_unknown_outcome() -> None:
    played = Played(forever(LOST), attempt_s=1.0)
    with pytest.raises(OutcomeUnknown) as caught:
        played.run(exchange(CLOSE, played.limits()))
    error = caught.value
    assert (error.key, error.outcome_unknown) == ("k", True)
    assert "the same call with the same key finds it" in error.message
    assert isinstance(error.__cause__, ConnectionFailed)
    assert played.now_s - 100 <= 30 + 1
    assert len(played.sent) > 8


def test_a_server_that_was_never_reached_did_nothing() -> None:
    played = Played(forever(REFUSED))
    with pytest.raises(ConnectionFailed) as caught:
        played.run(exchange(CLOSE, played.limits()))
    assert (caught.value.key, caught.value.outcome_unknown) == ("k", False)


def test_one_lost_attempt_makes_the_outcome_unknown() -> None:
    played = Played([LOST, *[REFUSED] * 100])
    with pytest.raises(OutcomeUnknown):
        played.run(exchange(CLOSE, played.limits()))
    played = Played([LOST, *[refused("overloaded", 503) for _ in range(100)]])
    with pytest.raises(OutcomeUnknown) as caught:
        played.run(exchange(CLOSE, played.limits()))
    assert isinstance(caught.value.__cause__, Overloaded)
    assert caught.value.trace_id == TRACE_ID


def test_a_refusal_after_a_lost_attempt_says_that_it_may_have_been_accepted() -> None:
    played = Played([LOST, refused("unauthenticated", 401)])
    with pytest.raises(Unauthenticated) as caught:
        played.run(exchange(CLOSE, played.limits()))
    assert caught.value.outcome_unknown is True


@pytest.mark.parametrize(
    ("code", "status", "kind", "unknown"),
    [
        ("overloaded", 503, Overloaded, False),
        ("unavailable", 503, OutcomeUnknown, True),
        ("internal_error", 500, InternalError, True),
    ],
)
def test_what_the_last_answer_leaves_open_is_said(code: str, status: int, kind: type[Exception], unknown: bool) -> None:
    played = Played(forever(refused(code, status)))
    with pytest.raises(kind) as caught:
        played.run(exchange(CLOSE, played.limits()))
    assert isinstance(caught.value, CloseflowError)
    assert caught.value.outcome_unknown is unknown


def test_a_wait_beyond_the_limit_is_not_begun() -> None:
    played = Played([refused("overloaded", 503, retry_after_s=31.0, should_retry=True)])
    with pytest.raises(Overloaded) as caught:
        played.run(exchange(CLOSE, played.limits()))
    assert (played.pauses, caught.value.retry_after_s) == ([], 31.0)


def test_no_retries_where_none_are_wanted() -> None:
    played = Played([REFUSED])
    with pytest.raises(ConnectionFailed):
        played.run(exchange(CLOSE, played.limits(retry_for_s=0)))
    assert len(played.sent) == 1


def test_a_question_without_answer_is_not_an_unknown_outcome() -> None:
    played = Played(forever(LOST))
    with pytest.raises(ConnectionFailed) as caught:
        played.run(exchange(GetCloseRequest(ID), played.limits()))
    assert caught.value.outcome_unknown is False
    played = Played(forever(refused("unavailable", 503)))
    with pytest.raises(Unavailable):
        played.run(exchange(GetCloseRequest(ID), played.limits()))


def test_a_cancel_without_answer_is() -> None:
    played = Played(forever(LOST))
    with pytest.raises(OutcomeUnknown, match="whether the cancel was taken is unknown"):
        played.run(exchange(CancelCloseRequest(ID, None), played.limits()))


@pytest.mark.parametrize(
    "values",
    [
        {},
        request_body(target_qty="ten"),
        request_body(target_qty=1.5),
        request_body(close_request_id="no uuid"),
        request_body(created_at="2026-03-02T15:00:00"),
        request_body(created_at="yesterday"),
        request_body(symbol=None),
        request_body(position_id=True),
    ],
)
def test_an_answer_that_cannot_be_read_may_have_been_an_acceptance(values: dict[str, Any]) -> None:
    played = Played([Answered(values)])
    with pytest.raises(AnswerUnreadable) as caught:
        played.run(exchange(CLOSE, played.limits()))
    assert (caught.value.key, caught.value.outcome_unknown) == ("k", True)


def result(n: int, **changes: Any) -> dict[str, Any]:
    return {"close_request": request_body(position_id=n, **changes), "replayed": False}


def closes(count: int) -> list[Close]:
    return [Close(n, key=f"b/{n}") for n in range(1, count + 1)]


def test_many_go_in_batches_and_come_back_in_order() -> None:
    asked = closes(1001)
    sizes = (range(1, 501), range(501, 1001), range(1001, 1002))
    played = Played([Answered({"results": [result(n) for n in some]}) for some in sizes])
    found = played.run(close_many(asked, played.limits()))
    assert [one.position_id for one in found if isinstance(one, CloseRequest)] == list(range(1, 1002))
    assert [one.key for one in found] == [one.key for one in asked]
    assert [len(call.closes) for call in played.sent if isinstance(call, CloseMany)] == [500, 500, 1]


def test_a_batch_is_no_larger_than_the_server_reads() -> None:
    """1 MiB. A reason has up to 500 characters, and each up to four bytes."""
    large = [Close(10**18 + n, key="\\" * 90 + str(n), reason="\U0001f600" * 500) for n in range(1000)]
    batches = list(batches_of(large))
    assert [one for batch in batches for one in batch] == large
    sizes = [len(request_of(CloseMany(tuple(batch))).body or b"") for batch in batches]
    assert all(size < 2**20 for size in sizes)
    assert max(sizes) > 600_000
    assert [len(batch) for batch in batches_of(closes(1001))] == [500, 500, 1]
    assert list(batches_of([])) == []


def test_only_what_may_be_retried_is_sent_again_with_the_same_keys() -> None:
    first = [result(1), refused("overloaded", 503), refused("position_closed", 409), refused("unavailable", 503)]
    second = [refused("unavailable", 503), result(4)]
    played = Played([Answered({"results": first}), Answered({"results": second}), Answered({"results": [result(2)]})])
    found = played.run(close_many(closes(4), played.limits()))
    sent = [[one.key for one in call.closes] for call in played.sent if isinstance(call, CloseMany)]
    assert sent == [["b/1", "b/2", "b/3", "b/4"], ["b/2", "b/4"], ["b/2"]]
    assert [getattr(one, "position_id", None) for one in found] == [1, 2, None, 4]
    assert isinstance(found[2], CloseflowError)
    assert (found[2].code, found[2].key, found[2].outcome_unknown) == ("position_closed", "b/3", False)
    assert played.pauses == pytest.approx([0.1, 0.2])


def test_a_lost_batch_is_sent_again_with_the_same_keys() -> None:
    played = Played([LOST, Answered({"results": [result(1) | {"replayed": True}, result(2)]})])
    found = played.run(close_many(closes(2), played.limits()))
    assert played.sent[0] == played.sent[1]
    assert [one.replayed for one in found if isinstance(one, CloseRequest)] == [True, False]


def test_many_raise_nothing_and_each_says_what_is_known_of_it() -> None:
    played = Played(forever(LOST))
    found = played.run(close_many(closes(2), played.limits()))
    assert [(type(one), one.key) for one in found] == [(OutcomeUnknown, "b/1"), (OutcomeUnknown, "b/2")]
    played = Played([refused("unauthenticated", 401)])
    found = played.run(close_many(closes(2), played.limits()))
    assert [(type(one), one.key) for one in found] == [(Unauthenticated, "b/1"), (Unauthenticated, "b/2")]
    assert found[0] is not found[1]
    assert played.run(close_many([], played.limits())) == []


@pytest.mark.parametrize(
    "values", [{}, {"results": 5}, {"results": []}, {"results": [{}, {}]}, {"results": ["a", "b"]}]
)
def test_results_that_cannot_be_read_are_errors_of_each_close(values: dict[str, Any]) -> None:
    played = Played([Answered(values)])
    found = played.run(close_many(closes(2), played.limits()))
    assert [(type(one), one.key) for one in found] == [(AnswerUnreadable, "b/1"), (AnswerUnreadable, "b/2")]
    assert all(one.outcome_unknown for one in found if isinstance(one, CloseflowError))


def test_waiting_asks_again_until_it_is_over() -> None:
    states = ["pending", "submitted", "submitted", "completed"]
    played = Played([Answered(request_body(close_request_status=one)) for one in states], attempt_s=5.0)
    found = played.run(wait_until_final(ID, played.limits(), timeout_s=None))
    assert found.close_request_status == "completed"
    assert [call.wait_s for call in played.sent if isinstance(call, GetCloseRequest)] == [0, 30, 30, 30]
    assert played.timeouts == [10.0, 40.0, 40.0, 40.0]
    assert played.pauses == []


def test_waiting_ends_in_time_with_the_last_state() -> None:
    played = Played(forever(Answered(request_body(close_request_status="submitted"))), attempt_s=8.0)
    with pytest.raises(NotFinal, match="was submitted after 20 s") as caught:
        played.run(wait_until_final(ID, played.limits(), timeout_s=20))
    assert caught.value.request.close_request_status == "submitted"
    assert [call.wait_s for call in played.sent if isinstance(call, GetCloseRequest)] == [0, 12, 4]


def test_a_server_that_does_not_wait_is_not_asked_without_pause() -> None:
    played = Played(forever(ACCEPTED))
    with pytest.raises(NotFinal):
        played.run(wait_until_final(ID, played.limits(), timeout_s=3))
    assert played.pauses == [0.5] * 6


def test_an_unknown_status_is_waited_through() -> None:
    states = ["parked_by_a_newer_server", "failed"]
    played = Played([Answered(request_body(close_request_status=one)) for one in states], attempt_s=1.0)
    assert played.run(wait_until_final(ID, played.limits(), timeout_s=None)).close_request_status == "failed"


def test_a_watch_shows_nothing_twice_and_resumes_after_the_last_event() -> None:
    played = Played([])
    watching = Watching(ID, played.limits())
    assert watching.last_event_id is None
    assert watching.heard(Change("e1", request_body())) is not None
    assert watching.heard(None) is None
    assert watching.heard(Change("e1", request_body())) is None
    assert watching.last_event_id == "e1"


def test_a_watch_is_patient_from_the_break_and_again_after_each_sign_of_life() -> None:
    played = Played([])
    watching = Watching(ID, played.limits())
    for sign in (Change("e1", request_body()), None):
        played.now_s += 1000
        assert watching.pause_s(LOST) == pytest.approx(0.1)
        assert watching.pause_s(LOST) == pytest.approx(0.2)
        watching.heard(sign)
    watching.pause_s(LOST)
    played.now_s += 31
    with pytest.raises(ConnectionFailed):
        watching.pause_s(LOST)


def test_a_watch_that_the_server_keeps_ending_is_over() -> None:
    """A final status that only a newer client knows."""
    played = Played([])
    watching = Watching(ID, played.limits())
    watching.heard(Change("e1", request_body(close_request_status="settled_by_a_newer_server")))
    assert watching.pause_s(ENDED) == pytest.approx(0.1)
    played.now_s += 31
    assert watching.pause_s(ENDED) is None
