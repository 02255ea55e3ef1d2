"""The calls of CloseService: each hands what it read to one use case."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from close_api.auth.caller import Scope
from close_api.close_body import check_position_id, read_moment, read_reason, read_request_id
from close_api.doors import Doors
from close_api.errors import Problem
from close_api.grpc.answers import (
    POSITION_STATUSES,
    REQUEST_STATUSES,
    position_message,
    request_message,
    write_answer,
    write_request,
)
from close_api.grpc.calls import AGED, STOPPING, TRACE_ID, Call, Door, StreamLimits, ended
from close_api.grpc.close_stream import CloseStream
from close_api.grpc.generated import close_pb2 as pb
from close_api.grpc.methods import Handler, both_streams, many_answers, one_answer
from close_api.grpc.requests import (
    MAX_STREAM_MESSAGE_BYTES,
    read_choice,
    read_close,
    read_page,
    read_text,
    read_wait,
    time_of,
)
from close_api.use_cases.cancelling import Cancelling
from close_api.use_cases.closing import CLOSES, Closing
from close_api.use_cases.reading import PositionFilter, Reading, RequestFilter
from closeflow.clock import timeout
from closeflow.tasks import race

SERVICE: Final = "closeflow.close.v1.CloseService"
ANSWER_BEFORE_S: Final = 0.2
"""How long before its deadline a wait is answered with what there is, so that the answer still arrives."""


@dataclass(frozen=True, slots=True)
class Service:
    """The calls that are not the stream of closes; all raise Problem."""

    door: Door
    closing: Closing
    reading: Reading
    cancelling: Cancelling
    streams: StreamLimits

    async def close_position(self, call: Call, message: pb.ClosePositionRequest) -> pb.ClosePositionResponse:
        """Answer after the COMMIT."""
        try:
            read = read_close(message.close)
            caller = await self.door.admit(call, Scope.WRITE, closes=1)
            command = read.command(caller, call.trace.header())
            answer = await self.closing.close(caller, command)
        except Problem as problem:
            CLOSES.labels(problem.code.value).inc()
            raise
        response = pb.ClosePositionResponse()
        write_answer(answer, response, dry_run=command.dry_run)
        return response

    async def get_close_request(self, call: Call, message: pb.GetCloseRequestRequest) -> pb.GetCloseRequestResponse:
        """At once or, with `wait`, at the next change; when the service stops, at once."""
        request_id = read_request_id(message.close_request_id)
        wait_s = read_wait(message)
        caller = await self.door.admit(call, Scope.READ)
        wait_s = min(wait_s, call.left_s() - ANSWER_BEFORE_S)
        state = None
        if wait_s > 0:
            state = await race(self.reading.wait(caller, request_id, wait_s=wait_s), self.door.stop)
        if state is None:
            state = await self.reading.request(caller, request_id)
        return pb.GetCloseRequestResponse(close_request=request_message(*state))

    async def list_close_requests(
        self, call: Call, message: pb.ListCloseRequestsRequest
    ) -> pb.ListCloseRequestsResponse:
        """A page, the newest first."""
        after = time_of(message.created_after, "created_after") if message.HasField("created_after") else None
        wanted = RequestFilter(
            account=read_text(message, "account"),
            status=read_choice(message.status, "status", REQUEST_STATUSES),
            position_id=check_position_id(message.position_id) if message.HasField("position_id") else None,
            created_after=None if after is None else read_moment(after, "created_after"),
        )
        size, token = read_page(message)
        caller = await self.door.admit(call, Scope.READ)
        page = await self.reading.requests(caller, wanted, page_size=size, page_token=token)
        response = pb.ListCloseRequestsResponse(next_page_token=page.next_page_token)
        for state in page.items:
            write_request(*state, response.close_requests.add())
        return response

    async def watch_close_request(self, call: Call, message: pb.WatchCloseRequestRequest) -> None:
        """Write each state until the request is over."""
        request_id = read_request_id(message.close_request_id)
        last = read_text(message, "last_event_id")
        caller = await self.door.admit(call, Scope.READ)
        await self.reading.request(caller, request_id)
        await call.context.send_initial_metadata(((TRACE_ID, call.trace.trace_id),))
        changes = self.reading.watch(caller, request_id, last_event_id=last)
        try:
            async with aclosing(changes), timeout(self.streams.age_s):
                while True:
                    change = await race(anext(changes, _ENDED), self.door.stop)
                    if change is _ENDED:
                        return
                    if self.door.stop.is_set():
                        raise ended(STOPPING)
                    if change is not None:
                        shown = request_message(*change.state)
                        answer = pb.WatchCloseRequestResponse(event_id=change.event_id, close_request=shown)
                        await call.write(answer, within_s=self.streams.idle_s)
        except TimeoutError:
            raise ended(AGED) from None

    async def cancel_close_request(
        self, call: Call, message: pb.CancelCloseRequestRequest
    ) -> pb.CancelCloseRequestResponse:
        """The close request as it is after the cancel was asked for."""
        request_id = read_request_id(message.close_request_id)
        reason = read_reason(message.reason) if message.HasField("reason") else None
        caller = await self.door.admit(call, Scope.WRITE, closes=1)
        state = await self.cancelling.cancel(caller, request_id, reason=reason, traceparent=call.trace.header())
        return pb.CancelCloseRequestResponse(close_request=request_message(*state))

    async def get_position(self, call: Call, message: pb.GetPositionRequest) -> pb.GetPositionResponse:
        """The position's state."""
        position_id = check_position_id(message.position_id)
        caller = await self.door.admit(call, Scope.READ)
        return pb.GetPositionResponse(position=position_message(await self.reading.position(caller, position_id)))

    async def list_positions(self, call: Call, message: pb.ListPositionsRequest) -> pb.ListPositionsResponse:
        """A page, the oldest first."""
        wanted = PositionFilter(
            account=read_text(message, "account"),
            status=read_choice(message.status, "status", POSITION_STATUSES),
            symbol=read_text(message, "symbol"),
        )
        size, token = read_page(message)
        caller = await self.door.admit(call, Scope.READ)
        page = await self.reading.positions(caller, wanted, page_size=size, page_token=token)
        shown = [position_message(one) for one in page.items]
        return pb.ListPositionsResponse(positions=shown, next_page_token=page.next_page_token)


_ENDED: Final[Any] = object()


def handlers(doors: Doors, streams: StreamLimits) -> dict[str, Handler]:
    """The methods by their names in close.proto."""
    door = Door(doors.identity, doors.rates, doors.stopping)
    calls = Service(door, doors.closing, doors.reading, doors.cancelling, streams)
    closes = CloseStream(door, doors.closing, streams)
    one = partial(one_answer, read_within_s=doors.deadline_s)
    many = partial(many_answers, read_within_s=doors.deadline_s)
    return {
        "ClosePosition": one("ClosePosition", pb.ClosePositionRequest, calls.close_position),
        "ClosePositions": both_streams(
            "ClosePositions", pb.ClosePositionsRequest, closes.serve, at_most=MAX_STREAM_MESSAGE_BYTES
        ),
        "GetCloseRequest": one("GetCloseRequest", pb.GetCloseRequestRequest, calls.get_close_request),
        "ListCloseRequests": one("ListCloseRequests", pb.ListCloseRequestsRequest, calls.list_close_requests),
        "WatchCloseRequest": many("WatchCloseRequest", pb.WatchCloseRequestRequest, calls.watch_close_request),
        "CancelCloseRequest": one("CancelCloseRequest", pb.CancelCloseRequestRequest, calls.cancel_close_request),
        "GetPosition": one("GetPosition", pb.GetPositionRequest, calls.get_position),
        "ListPositions": one("ListPositions", pb.ListPositionsRequest, calls.list_positions),
    }
