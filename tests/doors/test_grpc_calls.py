"""What the calls of one message make of the use cases, and how each of them fails."""

from __future__ import annotations

import grpc
import pytest

from closeflow_client.generated import close_pb2 as pb

from .grpc_serving import ACC, serving, told

CLOSE = pb.ClosePositionRequest(close=pb.Close(position_id=7, idempotency_key="k"))


async def test_a_close_is_accepted_and_replayed() -> None:
    async with serving() as served, served.stub() as api:
        first = await api.ClosePosition(CLOSE, metadata=ACC)
        again = await api.ClosePosition(CLOSE, metadata=ACC)
        print(first, again)
    assert not first.replayed
    assert again.replayed
    assert again.close_request == first.close_request


async def test_no_token() -> None:
    async with serving() as served, served.stub() as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.ClosePosition(CLOSE)
        print(told(refused.value))


async def test_stream() -> None:
    async with serving() as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        for n in range(3):
            await call.write(pb.ClosePositionsRequest(batch_id=n, closes=[pb.Close(position_id=n+m, idempotency_key="k") for m in range(3)]))
            print(await call.read())
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        print(await call.trailing_metadata(), await call.initial_metadata(), await call.code())
