"""What brokers have in common (`protocol`, `trade_updates`), and an adapter for each in a package of its own."""

from closeflow.broker.protocol import (
    SYMBOLS_PER_CALL,
    Broker,
    BrokerUnavailable,
    Capabilities,
    ExecutionPage,
    FailureCause,
    HandingOver,
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
    "HandingOver",
    "IdDeduplication",
    "MayBegin",
    "OpenOrders",
    "Positions",
]
