"""What crosses a process border; mirrors schemas/."""

from closeflow.contracts.broker_fill import BrokerFillV1, broker_fill_key
from closeflow.contracts.cloudevents import build_headers, schema_name
from closeflow.contracts.codec import ErrorClass, Undecodable, UnknownValue, decode, encode, peek
from closeflow.contracts.execution_event import ExecutionEvent, ExecutionEventType
from closeflow.contracts.ids import new_close_request_id
from closeflow.contracts.position_event import PositionEvent
from closeflow.contracts.submit_order import SubmitOrder
from closeflow.contracts.topics import BROKER_FILL, EXECUTION_EVENTS, POSITION_EVENTS, SUBMIT_ORDER, dead_letter_topic
from closeflow.contracts.wire import WireModel

__all__ = [
    "BROKER_FILL",
    "EXECUTION_EVENTS",
    "POSITION_EVENTS",
    "SUBMIT_ORDER",
    "BrokerFillV1",
    "ErrorClass",
    "ExecutionEvent",
    "ExecutionEventType",
    "PositionEvent",
    "SubmitOrder",
    "Undecodable",
    "UnknownValue",
    "WireModel",
    "broker_fill_key",
    "build_headers",
    "dead_letter_topic",
    "decode",
    "encode",
    "new_close_request_id",
    "peek",
    "schema_name",
]
