"""Calls over gRPC, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc.aio

from closeflow_client.address import Address, Tls
from closeflow_client.calls import Call, Change, CloseMany, Reply
from closeflow_client.errors import InvalidFields
from closeflow_client.generated import close_pb2 as pb
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub
from closeflow_client.grpc.channel import OPTIONS, credentials_of, metadata_of
from closeflow_client.grpc.messages import answer_of, batches_of, message_of, method_of, results_of, values_of
from closeflow_client.grpc.statuses import failure_of
from closeflow_client.transport import Broken

if TYPE_CHECKING:
    from closeflow_client.generated.close_pb2_grpc import CloseServiceAsyncStub


class AsyncGrpcTransport:
    """Over one channel, of the event loop in which it is first used."""

    def __init__(self, address: Address, tls: Tls) -> None:
        self._target = address.target
        self._credentials = credentials_of(address, tls)
        self._channel: grpc.aio.Channel | None = None

    async def send(self, call: Call[Any], authorization: str | None, timeout_s: float) -> Reply:
        """Make one attempt."""
        metadata = metadata_of(authorization)
        stub = self._stub()
        try:
            if isinstance(call, CloseMany):
                stream = stub.ClosePositions(iter(batches_of(call)), timeout=timeout_s, metadata=metadata)
                return results_of([one async for one in stream])
            method = getattr(stub, method_of(call))
            return answer_of(call, await method(message_of(call), timeout=timeout_s, metadata=metadata))
        except InvalidFields as error:
            return error
        except grpc.RpcError as error:
            return failure_of(error)

    async def watch(
        self, request_id: UUID, last_event_id: str | None, authorization: str | None
    ) -> AsyncGenerator[Change | None, None]:
        """States as they come; keep-alive pings are the transport's own. Raises Broken."""
        request = pb.WatchCloseRequestRequest(close_request_id=str(request_id), last_event_id=last_event_id)
        stream = self._stub().WatchCloseRequest(request, metadata=metadata_of(authorization))
        try:
            async for one in stream:
                yield Change(one.event_id, values_of(one.close_request))
        except grpc.RpcError as error:
            raise Broken(failure_of(error)) from error
        finally:
            stream.cancel()

    async def close(self) -> None:
        """End its connections."""
        if self._channel is not None:
            await self._channel.close()

    def _stub(self) -> CloseServiceAsyncStub:
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._target, OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._target, self._credentials, OPTIONS)
        return CloseServiceStub(self._channel)
