import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PositionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POSITION_STATUS_UNSPECIFIED: _ClassVar[PositionStatus]
    POSITION_STATUS_OPEN: _ClassVar[PositionStatus]
    POSITION_STATUS_CLOSING: _ClassVar[PositionStatus]
    POSITION_STATUS_CLOSED: _ClassVar[PositionStatus]
    POSITION_STATUS_CLOSE_RETRYABLE: _ClassVar[PositionStatus]
    POSITION_STATUS_CLOSE_FAILED: _ClassVar[PositionStatus]

class CloseRequestStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOSE_REQUEST_STATUS_UNSPECIFIED: _ClassVar[CloseRequestStatus]
    CLOSE_REQUEST_STATUS_PENDING: _ClassVar[CloseRequestStatus]
    CLOSE_REQUEST_STATUS_SUBMITTED: _ClassVar[CloseRequestStatus]
    CLOSE_REQUEST_STATUS_COMPLETED: _ClassVar[CloseRequestStatus]
    CLOSE_REQUEST_STATUS_RETRYABLE: _ClassVar[CloseRequestStatus]
    CLOSE_REQUEST_STATUS_FAILED: _ClassVar[CloseRequestStatus]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_UNSPECIFIED: _ClassVar[Side]
    SIDE_BUY: _ClassVar[Side]
    SIDE_SELL: _ClassVar[Side]

class OrderType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_TYPE_UNSPECIFIED: _ClassVar[OrderType]
    ORDER_TYPE_LIMIT: _ClassVar[OrderType]
    ORDER_TYPE_MARKET: _ClassVar[OrderType]

class TimeInForce(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIME_IN_FORCE_UNSPECIFIED: _ClassVar[TimeInForce]
    TIME_IN_FORCE_DAY: _ClassVar[TimeInForce]
    TIME_IN_FORCE_GTC: _ClassVar[TimeInForce]
    TIME_IN_FORCE_IOC: _ClassVar[TimeInForce]

class AssetType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSET_TYPE_UNSPECIFIED: _ClassVar[AssetType]
    ASSET_TYPE_STOCK: _ClassVar[AssetType]
    ASSET_TYPE_OPTION: _ClassVar[AssetType]
    ASSET_TYPE_CRYPTO: _ClassVar[AssetType]
POSITION_STATUS_UNSPECIFIED: PositionStatus
POSITION_STATUS_OPEN: PositionStatus
POSITION_STATUS_CLOSING: PositionStatus
POSITION_STATUS_CLOSED: PositionStatus
POSITION_STATUS_CLOSE_RETRYABLE: PositionStatus
POSITION_STATUS_CLOSE_FAILED: PositionStatus
CLOSE_REQUEST_STATUS_UNSPECIFIED: CloseRequestStatus
CLOSE_REQUEST_STATUS_PENDING: CloseRequestStatus
CLOSE_REQUEST_STATUS_SUBMITTED: CloseRequestStatus
CLOSE_REQUEST_STATUS_COMPLETED: CloseRequestStatus
CLOSE_REQUEST_STATUS_RETRYABLE: CloseRequestStatus
CLOSE_REQUEST_STATUS_FAILED: CloseRequestStatus
SIDE_UNSPECIFIED: Side
SIDE_BUY: Side
SIDE_SELL: Side
ORDER_TYPE_UNSPECIFIED: OrderType
ORDER_TYPE_LIMIT: OrderType
ORDER_TYPE_MARKET: OrderType
TIME_IN_FORCE_UNSPECIFIED: TimeInForce
TIME_IN_FORCE_DAY: TimeInForce
TIME_IN_FORCE_GTC: TimeInForce
TIME_IN_FORCE_IOC: TimeInForce
ASSET_TYPE_UNSPECIFIED: AssetType
ASSET_TYPE_STOCK: AssetType
ASSET_TYPE_OPTION: AssetType
ASSET_TYPE_CRYPTO: AssetType

class Close(_message.Message):
    __slots__ = ("position_id", "idempotency_key", "quantity", "percentage", "order_type", "limit_price", "max_slippage_bps", "time_in_force", "working_timeout_seconds", "deadline", "expected_quantity", "expected_version", "reason", "dry_run")
    POSITION_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    ORDER_TYPE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_PRICE_FIELD_NUMBER: _ClassVar[int]
    MAX_SLIPPAGE_BPS_FIELD_NUMBER: _ClassVar[int]
    TIME_IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    WORKING_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_QUANTITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    position_id: int
    idempotency_key: str
    quantity: str
    percentage: str
    order_type: OrderType
    limit_price: str
    max_slippage_bps: int
    time_in_force: TimeInForce
    working_timeout_seconds: int
    deadline: _timestamp_pb2.Timestamp
    expected_quantity: str
    expected_version: int
    reason: str
    dry_run: bool
    def __init__(self, position_id: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., quantity: _Optional[str] = ..., percentage: _Optional[str] = ..., order_type: _Optional[_Union[OrderType, str]] = ..., limit_price: _Optional[str] = ..., max_slippage_bps: _Optional[int] = ..., time_in_force: _Optional[_Union[TimeInForce, str]] = ..., working_timeout_seconds: _Optional[int] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_quantity: _Optional[str] = ..., expected_version: _Optional[int] = ..., reason: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CloseRequest(_message.Message):
    __slots__ = ("close_request_id", "position_id", "position_status", "close_request_status", "symbol", "side", "target_qty", "filled_qty", "remaining_qty", "retry_count", "created_at", "submitted_at", "completed_at", "reason")
    CLOSE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_STATUS_FIELD_NUMBER: _ClassVar[int]
    CLOSE_REQUEST_STATUS_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TARGET_QTY_FIELD_NUMBER: _ClassVar[int]
    FILLED_QTY_FIELD_NUMBER: _ClassVar[int]
    REMAINING_QTY_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    close_request_id: str
    position_id: int
    position_status: PositionStatus
    close_request_status: CloseRequestStatus
    symbol: str
    side: Side
    target_qty: str
    filled_qty: str
    remaining_qty: str
    retry_count: int
    created_at: _timestamp_pb2.Timestamp
    submitted_at: _timestamp_pb2.Timestamp
    completed_at: _timestamp_pb2.Timestamp
    reason: str
    def __init__(self, close_request_id: _Optional[str] = ..., position_id: _Optional[int] = ..., position_status: _Optional[_Union[PositionStatus, str]] = ..., close_request_status: _Optional[_Union[CloseRequestStatus, str]] = ..., symbol: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., target_qty: _Optional[str] = ..., filled_qty: _Optional[str] = ..., remaining_qty: _Optional[str] = ..., retry_count: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., completed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("position_id", "account_id", "symbol", "asset_type", "position_status", "quantity", "opening_qty", "multiplier", "currency", "exposure_unproven", "active_close_request_id", "closed_at", "version")
    POSITION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    ASSET_TYPE_FIELD_NUMBER: _ClassVar[int]
    POSITION_STATUS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    OPENING_QTY_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_UNPROVEN_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_CLOSE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLOSED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    position_id: int
    account_id: str
    symbol: str
    asset_type: AssetType
    position_status: PositionStatus
    quantity: str
    opening_qty: str
    multiplier: str
    currency: str
    exposure_unproven: bool
    active_close_request_id: str
    closed_at: _timestamp_pb2.Timestamp
    version: int
    def __init__(self, position_id: _Optional[int] = ..., account_id: _Optional[str] = ..., symbol: _Optional[str] = ..., asset_type: _Optional[_Union[AssetType, str]] = ..., position_status: _Optional[_Union[PositionStatus, str]] = ..., quantity: _Optional[str] = ..., opening_qty: _Optional[str] = ..., multiplier: _Optional[str] = ..., currency: _Optional[str] = ..., exposure_unproven: _Optional[bool] = ..., active_close_request_id: _Optional[str] = ..., closed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class DryRun(_message.Message):
    __slots__ = ("position_id", "account_id", "position_version", "target_qty", "order")
    POSITION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGET_QTY_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    position_id: int
    account_id: str
    position_version: int
    target_qty: str
    order: PlannedOrder
    def __init__(self, position_id: _Optional[int] = ..., account_id: _Optional[str] = ..., position_version: _Optional[int] = ..., target_qty: _Optional[str] = ..., order: _Optional[_Union[PlannedOrder, _Mapping]] = ...) -> None: ...

class PlannedOrder(_message.Message):
    __slots__ = ("symbol", "side", "quantity", "order_type", "limit_price", "time_in_force")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    ORDER_TYPE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_PRICE_FIELD_NUMBER: _ClassVar[int]
    TIME_IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    side: Side
    quantity: str
    order_type: OrderType
    limit_price: str
    time_in_force: TimeInForce
    def __init__(self, symbol: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., quantity: _Optional[str] = ..., order_type: _Optional[_Union[OrderType, str]] = ..., limit_price: _Optional[str] = ..., time_in_force: _Optional[_Union[TimeInForce, str]] = ...) -> None: ...

class ClosePositionRequest(_message.Message):
    __slots__ = ("close",)
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    close: Close
    def __init__(self, close: _Optional[_Union[Close, _Mapping]] = ...) -> None: ...

class ClosePositionResponse(_message.Message):
    __slots__ = ("close_request", "dry_run", "replayed")
    CLOSE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    close_request: CloseRequest
    dry_run: DryRun
    replayed: bool
    def __init__(self, close_request: _Optional[_Union[CloseRequest, _Mapping]] = ..., dry_run: _Optional[_Union[DryRun, _Mapping]] = ..., replayed: _Optional[bool] = ...) -> None: ...

class ClosePositionsRequest(_message.Message):
    __slots__ = ("batch_id", "closes")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    CLOSES_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    closes: _containers.RepeatedCompositeFieldContainer[Close]
    def __init__(self, batch_id: _Optional[int] = ..., closes: _Optional[_Iterable[_Union[Close, _Mapping]]] = ...) -> None: ...

class ClosePositionsResponse(_message.Message):
    __slots__ = ("batch_id", "results")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    results: _containers.RepeatedCompositeFieldContainer[CloseResult]
    def __init__(self, batch_id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[CloseResult, _Mapping]]] = ...) -> None: ...

class CloseResult(_message.Message):
    __slots__ = ("close_request", "dry_run", "error", "replayed")
    CLOSE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    close_request: CloseRequest
    dry_run: DryRun
    error: _status_pb2.Status
    replayed: bool
    def __init__(self, close_request: _Optional[_Union[CloseRequest, _Mapping]] = ..., dry_run: _Optional[_Union[DryRun, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., replayed: _Optional[bool] = ...) -> None: ...

class GetCloseRequestRequest(_message.Message):
    __slots__ = ("close_request_id", "wait")
    CLOSE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    close_request_id: str
    wait: _duration_pb2.Duration
    def __init__(self, close_request_id: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetCloseRequestResponse(_message.Message):
    __slots__ = ("close_request",)
    CLOSE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    close_request: CloseRequest
    def __init__(self, close_request: _Optional[_Union[CloseRequest, _Mapping]] = ...) -> None: ...

class ListCloseRequestsRequest(_message.Message):
    __slots__ = ("account", "status", "position_id", "created_after", "page_size", "page_token")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    POSITION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AFTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    account: str
    status: CloseRequestStatus
    position_id: int
    created_after: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, account: _Optional[str] = ..., status: _Optional[_Union[CloseRequestStatus, str]] = ..., position_id: _Optional[int] = ..., created_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCloseRequestsResponse(_message.Message):
    __slots__ = ("close_requests", "next_page_token")
    CLOSE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    close_requests: _containers.RepeatedCompositeFieldContainer[CloseRequest]
    next_page_token: str
    def __init__(self, close_requests: _Optional[_Iterable[_Union[CloseRequest, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchCloseRequestRequest(_message.Message):
    __slots__ = ("close_request_id", "last_event_id")
    CLOSE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    close_request_id: str
    last_event_id: str
    def __init__(self, close_request_id: _Optional[str] = ..., last_event_id: _Optional[str] = ...) -> None: ...

class WatchCloseRequestResponse(_message.Message):
    __slots__ = ("event_id", "close_request")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLOSE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    close_request: CloseRequest
    def __init__(self, event_id: _Optional[str] = ..., close_request: _Optional[_Union[CloseRequest, _Mapping]] = ...) -> None: ...

class CancelCloseRequestRequest(_message.Message):
    __slots__ = ("close_request_id", "reason")
    CLOSE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    close_request_id: str
    reason: str
    def __init__(self, close_request_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelCloseRequestResponse(_message.Message):
    __slots__ = ("close_request",)
    CLOSE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    close_request: CloseRequest
    def __init__(self, close_request: _Optional[_Union[CloseRequest, _Mapping]] = ...) -> None: ...

class GetPositionRequest(_message.Message):
    __slots__ = ("position_id",)
    POSITION_ID_FIELD_NUMBER: _ClassVar[int]
    position_id: int
    def __init__(self, position_id: _Optional[int] = ...) -> None: ...

class GetPositionResponse(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: Position
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class ListPositionsRequest(_message.Message):
    __slots__ = ("account", "status", "symbol", "page_size", "page_token")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    account: str
    status: PositionStatus
    symbol: str
    page_size: int
    page_token: str
    def __init__(self, account: _Optional[str] = ..., status: _Optional[_Union[PositionStatus, str]] = ..., symbol: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPositionsResponse(_message.Message):
    __slots__ = ("positions", "next_page_token")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.RepeatedCompositeFieldContainer[Position]
    next_page_token: str
    def __init__(self, positions: _Optional[_Iterable[_Union[Position, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
