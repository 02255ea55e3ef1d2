"""Logs, metric names, trace context."""
