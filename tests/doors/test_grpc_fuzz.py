"""Messages of every shape that close.proto allows, with values that nobody means, at a real close-api: each is answered
as a call is, and what is accepted is exactly what the answers say."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from closeflow_client.generated import close_pb2 as pb
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub

from .conftest import MINE, Desk, Running
from .messages import UNKNOWN

EXAMPLES: Final = 650
AT_A_TIME: Final = 50
REQUESTS: Final[dict[str, type[Message]]] = {
    "ClosePosition": pb.ClosePositionRequest,
    "ClosePositions": pb.ClosePositionsRequest,
    "GetCloseRequest": pb.GetCloseRequestRequest,
    "ListCloseRequests": pb.ListCloseRequestsRequest,
    "WatchCloseRequest": pb.WatchCloseRequestRequest,
    "CancelCloseRequest": pb.CancelCloseRequestRequest,
    "GetPosition": pb.GetPositionRequest,
    "ListPositions": pb.ListPositionsRequest,
}
ANSWERED: Final = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
}
TEXTS: Final = (
    "", " ", "k", "10", "0.5", "-3", "0", "100", "1e9", "NaN", "1 OR 1=1", "'; DROP TABLE positions; --", "\x00",
    "\x7f", "ünï", "🜚" * 40, "x" * 101, "9" * 5_000, "../../etc/passwd", "%s%n", "null", UNKNOWN,
    UNKNOWN.upper(), MINE, "S1",
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, 50, 100, -1, 9_999, 86_400, 2**31 - 1, -(2**31))
LARGE: Final = (*NUMBERS, 2**53, 2**63 - 1, -(2**63))
LIKELY: Final = {"close": 0.98, "closes": 0.98, "position_id": 0.9, "idempotency_key": 0.9, "close_request_id": 0.8}
UNKNOWN_FIELD: Final = b"\x98\x7d\x01"


def fill(message: Message, source: random.Random, positions: list[int], depth: int = 0) -> None:
    """Put something into some of the fields, and mostly into those without which nothing goes on."""
    for field in message.DESCRIPTOR.fields:
        if source.random() > LIKELY.get(field.name, 0.5 if depth == 0 else 0.2):
            continue
        if field.is_repeated:
            for _ in range(source.choice((1, 2, 5, 20))):
                fill(getattr(message, field.name).add(), source, positions, depth + 1)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            part = getattr(message, field.name)
            part.SetInParent()
            fill(part, source, positions, depth + 1)
        else:
            setattr(message, field.name, value_of(field, source, positions))


def value_of(field: Any, source: random.Random, positions: list[int]) -> object:
    """Mostly one that means something where it stands."""
    if field.name == "position_id" and source.random() < 0.8:
        return source.choice(positions)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            if field.name == "idempotency_key" and source.random() < 0.8:
                return source.choice("abcdef")
            return source.choice(TEXTS)
        case FieldDescriptor.TYPE_BOOL:
            return source.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            return source.choice((0, 1, 2, 3, 77, -1))
        case FieldDescriptor.TYPE_INT64:
            return source.choice(LARGE)
        case _:
            return source.choice(NUMBERS)


def made(kind: type[Message], source: random.Random, positions: list[int]) -> bytes:
    message = kind()
    fill(message, source, positions)
    raw = message.SerializeToString()
    return raw + UNKNOWN_FIELD if source.random() < 0.05 else raw


async def ask(stub: Any, name: str, raw: bytes, metadata: Any) -> tuple[grpc.StatusCode, list[Any], str]:
    """How it ends, what it is answered, and for a report what is said."""
    message = REQUESTS[name].FromString(raw)
    call: Any
    answers: list[Any] = []
    if name == "ClosePositions":
        call = stub.ClosePositions(metadata=metadata, timeout=30.0)
        await call.write(message)
        await call.done_writing()
    else:
        call = getattr(stub, name)(message, metadata=metadata, timeout=30.0)
    try:
        if hasattr(call, "read"):
            while (answer := await call.read()) is not grpc.aio.EOF:
                answers.append(answer)
                if name == "WatchCloseRequest":
                    call.cancel()
                    return grpc.StatusCode.OK, answers, ""
        else:
            answers.append(await call)
    except grpc.aio.AioRpcError as error:
        return error.code(), answers, f"{error.details()} {error.debug_error_string()}"
    return grpc.StatusCode.OK, answers, ""


def results_of(answers: list[Any]) -> list[Any]:
    """The results of closes, whichever call they were."""
    found: list[Any] = []
    for answer in answers:
        if isinstance(answer, pb.ClosePositionResponse):
            found.append(answer)
        elif isinstance(answer, pb.ClosePositionsResponse):
            found += answer.results
    return found


@pytest.mark.parametrize("name", REQUESTS)
async def test_messages_of_every_shape_are_answered_as_calls_are(desk: Desk, api: Running, name: str) -> None:
    positions = desk.open_positions(30)
    metadata = (("authorization", f"Bearer {desk.issuer.token(MINE)}"),)
    source = random.Random(f"2026 {name}")
    messages = [made(REQUESTS[name], source, positions) for _ in range(EXAMPLES)]
    codes: Counter[grpc.StatusCode] = Counter()
    accepted: set[str] = set()
    async with grpc.aio.insecure_channel(api.grpc_target) as channel:
        stub = CloseServiceStub(channel)
        for n in range(0, EXAMPLES, AT_A_TIME):
            batch = messages[n : n + AT_A_TIME]
            for raw, (code, answers, said) in zip(
                batch, await asyncio.gather(*(ask(stub, name, raw, metadata) for raw in batch)), strict=True
            ):
                assert code in ANSWERED, (code, said, raw)
                codes[code] += 1
                for result in results_of(answers):
                    if result.HasField("close_request"):
                        accepted.add(result.close_request.close_request_id)
                    if isinstance(result, pb.CloseResult) and result.HasField("error"):
                        assert well_known(result.error), result.error
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > 0, "the messages are too tame"
    assert desk.requests() == len(accepted)
    assert name not in ("ClosePosition", "ClosePositions") or accepted


def well_known(status: Status) -> bool:
    return any(status.code == code.value[0] for code in ANSWERED - {grpc.StatusCode.OK})
