"""The Broker protocol and the Alpaca adapter."""

from closeflow.broker.protocol import (
    Broker,
    BrokerUnavailable,
    Capabilities,
    ExecutionPage,
    IdDeduplication,
)

__all__ = ["Broker", "BrokerUnavailable", "Capabilities", "ExecutionPage", "IdDeduplication"]
