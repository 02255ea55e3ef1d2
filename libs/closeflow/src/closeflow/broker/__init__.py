"""The Broker protocol and the Alpaca adapter."""

from closeflow.broker.protocol import (
    SYMBOLS_PER_CALL,
    Broker,
    BrokerUnavailable,
    Capabilities,
    ExecutionPage,
    FailureCause,
    IdDeduplication,
    MayBegin,
    OpenOrders,
    Positions,
)

__all__ = [
    "SYMBOLS_PER_CALL",
    "Broker",
    "BrokerUnavailable",
    "Capabilities",
    "ExecutionPage",
    "FailureCause",
    "IdDeduplication",
    "MayBegin",
    "OpenOrders",
    "Positions",
]
