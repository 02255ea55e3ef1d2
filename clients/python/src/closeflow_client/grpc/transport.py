"""Calls over gRPC, for threads."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from uuid import UUID

import grpc

from closeflow_client.address import Address, Tls
from closeflow_client.calls import Call, Change, CloseMany, Reply
from closeflow_client.errors import InvalidFields
from closeflow_client.generated import close_pb2 as pb
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub
from closeflow_client.grpc.channel import OPTIONS, credentials_of, metadata_of
from closeflow_client.grpc.messages import answer_of, batches_of, message_of, method_of, results_of, values_of
from closeflow_client.grpc.statuses import failure_of
from closeflow_client.transport import Broken


class GrpcTransport:
    """Over one channel, from any thread."""

    def __init__(self, address: Address, tls: Tls) -> None:
        credentials = credentials_of(address, tls)
        if credentials is None:
            self._channel = grpc.insecure_channel(address.target, OPTIONS)
        else:
            self._channel = grpc.secure_channel(address.target, credentials, OPTIONS)
        self._stub = CloseServiceStub(self._channel)

    def send(self, call: Call[Any], authorization: str | None, timeout_s: float) -> Reply:
        """Make one attempt."""
        metadata = metadata_of(authorization)
        try:
            if isinstance(call, CloseMany):
                return results_of(
                    self._stub.ClosePositions(iter(batches_of(call)), timeout=timeout_s, metadata=metadata)
                )
            method = getattr(self._stub, method_of(call))
            return answer_of(call, method(message_of(call), timeout=timeout_s, metadata=metadata))
        except InvalidFields as error:
            return error
        except grpc.RpcError as error:
            return failure_of(error)

    def watch(
        self, request_id: UUID, last_event_id: str | None, authorization: str | None
    ) -> Generator[Change | None, None, None]:
        """States as they come; keep-alive pings are the transport's own. Raises Broken."""
        request = pb.WatchCloseRequestRequest(close_request_id=str(request_id), last_event_id=last_event_id)
        stream = self._stub.WatchCloseRequest(request, metadata=metadata_of(authorization))
        try:
            for one in stream:
                yield Change(one.event_id, values_of(one.close_request))
        except grpc.RpcError as error:
            raise Broken(failure_of(error)) from error
        finally:
            stream.cancel()

    def close(self) -> None:
        """End its connections."""
        self._channel.close()
