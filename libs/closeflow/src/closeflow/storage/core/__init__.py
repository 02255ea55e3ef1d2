"""Connections, transactions, and how statements are run."""
