"""Stop a close: withdraw it where nothing was sent, else have its order cancelled at the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never
from uuid import UUID

from close_api.auth.caller import Caller, Scope
from close_api.errors import Code, Problem
from close_api.use_cases.reading import answered
from closeflow.domain.model import Book
from closeflow.domain.operator.requests import Already, Done, Outcome, Refused
from closeflow.operating.acting import NotThere, Operator
from closeflow.operating.closes import cancel_in
from closeflow.storage.close_requests import Engine, RequestState, Tx
from closeflow.telemetry import parse_traceparent

NO_REASON: Final = "its caller cancelled it and gave no reason"


@dataclass(frozen=True, slots=True)
class Cancelling:
    """`deadline_s` bounds the whole of a cancel."""

    engine: Engine
    deadline_s: float

    async def cancel(self, caller: Caller, request_id: UUID, *, reason: str | None, traceparent: str) -> RequestState:
        """The state once the cancel is asked for, which may be that the request goes on until the broker has answered.
        Repeated, it changes nothing and gives the state.

        What was done is recorded under the caller's subject. Raises Problem: `close_request_finished` where the request
        ended otherwise, `not_found`, `unavailable`, `forbidden`.
        """
        caller.require(Scope.WRITE)
        trace = parse_traceparent(traceparent)
        operator = Operator(
            by=caller.subject,
            reason=reason or NO_REASON,
            accounts=caller.accounts,
            trace_id=None if trace is None else trace.trace_id,
        )

        async def work(tx: Tx) -> tuple[Book, Outcome]:
            return await cancel_in(tx, request_id, operator)

        try:
            book, outcome = await answered(self.engine, work, deadline_s=self.deadline_s)
        except NotThere:
            raise Problem(Code.NOT_FOUND) from None
        match outcome:
            case Done(book=after):
                book = after
            case Already():
                pass
            case Refused(reasons):
                raise Problem(Code.CLOSE_REQUEST_FINISHED, extra={"reasons": list(reasons)})
            case _:
                assert_never(outcome)
        return book.requests[request_id], book.position
