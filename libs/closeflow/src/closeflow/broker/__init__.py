"""The Broker protocol and the Alpaca adapter."""

from closeflow.broker.protocol import (
    Broker,
    BrokerUnavailable,
    Capabilities,
    ExecutionPage,
    IdDeduplication,
    MayBegin,
)

__all__ = ["Broker", "BrokerUnavailable", "Capabilities", "ExecutionPage", "IdDeduplication", "MayBegin"]
