"""The Broker protocol and the Alpaca adapter."""
