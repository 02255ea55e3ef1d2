"""Close positions through closeflow, each exactly once.

`Client` and `AsyncClient` speak REST or gRPC, by their address, and retry what is safe to retry under one key. What a
call raises is in `closeflow_client.errors`, a class for each code.
"""

from closeflow_client.async_client import AsyncClient
from closeflow_client.client import Client
from closeflow_client.close import Close
from closeflow_client.connect import GrpcMissing
from closeflow_client.errors import CloseflowError, ConnectionFailed, FieldError, NotFinal, OutcomeUnknown
from closeflow_client.keys import key_in_batch, new_key
from closeflow_client.values import ClosePlan, CloseRequest, Position

__all__ = [
    "AsyncClient",
    "Client",
    "Close",
    "ClosePlan",
    "CloseRequest",
    "CloseflowError",
    "ConnectionFailed",
    "FieldError",
    "GrpcMissing",
    "NotFinal",
    "OutcomeUnknown",
    "Position",
    "key_in_batch",
    "new_key",
]
