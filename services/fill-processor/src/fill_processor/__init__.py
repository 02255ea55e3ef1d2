"""Turns broker updates into executions, orders, requests and positions."""
