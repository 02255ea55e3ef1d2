"""Alpaca's Trading API v2: a thin client of our own, because its library repeats a POST by itself."""

from closeflow.broker.alpaca.client import ALPACA, BROKER_NAME, AlpacaBroker

__all__ = ["ALPACA", "BROKER_NAME", "AlpacaBroker"]
