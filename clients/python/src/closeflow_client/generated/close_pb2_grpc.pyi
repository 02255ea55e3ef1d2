import grpc
import grpc.aio
from typing import overload

from . import close_pb2

class CloseServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> CloseServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> CloseServiceAsyncStub: ...  # type: ignore[misc]
    ClosePosition: grpc.UnaryUnaryMultiCallable[close_pb2.ClosePositionRequest, close_pb2.ClosePositionResponse]
    ClosePositions: grpc.StreamStreamMultiCallable[close_pb2.ClosePositionsRequest, close_pb2.ClosePositionsResponse]
    GetCloseRequest: grpc.UnaryUnaryMultiCallable[close_pb2.GetCloseRequestRequest, close_pb2.GetCloseRequestResponse]
    ListCloseRequests: grpc.UnaryUnaryMultiCallable[close_pb2.ListCloseRequestsRequest, close_pb2.ListCloseRequestsResponse]
    WatchCloseRequest: grpc.UnaryStreamMultiCallable[close_pb2.WatchCloseRequestRequest, close_pb2.WatchCloseRequestResponse]
    CancelCloseRequest: grpc.UnaryUnaryMultiCallable[close_pb2.CancelCloseRequestRequest, close_pb2.CancelCloseRequestResponse]
    GetPosition: grpc.UnaryUnaryMultiCallable[close_pb2.GetPositionRequest, close_pb2.GetPositionResponse]
    ListPositions: grpc.UnaryUnaryMultiCallable[close_pb2.ListPositionsRequest, close_pb2.ListPositionsResponse]

class CloseServiceAsyncStub:
    ClosePosition: grpc.aio.UnaryUnaryMultiCallable[close_pb2.ClosePositionRequest, close_pb2.ClosePositionResponse]
    ClosePositions: grpc.aio.StreamStreamMultiCallable[close_pb2.ClosePositionsRequest, close_pb2.ClosePositionsResponse]
    GetCloseRequest: grpc.aio.UnaryUnaryMultiCallable[close_pb2.GetCloseRequestRequest, close_pb2.GetCloseRequestResponse]
    ListCloseRequests: grpc.aio.UnaryUnaryMultiCallable[close_pb2.ListCloseRequestsRequest, close_pb2.ListCloseRequestsResponse]
    WatchCloseRequest: grpc.aio.UnaryStreamMultiCallable[close_pb2.WatchCloseRequestRequest, close_pb2.WatchCloseRequestResponse]
    CancelCloseRequest: grpc.aio.UnaryUnaryMultiCallable[close_pb2.CancelCloseRequestRequest, close_pb2.CancelCloseRequestResponse]
    GetPosition: grpc.aio.UnaryUnaryMultiCallable[close_pb2.GetPositionRequest, close_pb2.GetPositionResponse]
    ListPositions: grpc.aio.UnaryUnaryMultiCallable[close_pb2.ListPositionsRequest, close_pb2.ListPositionsResponse]
