"""Finds what is stuck and repairs it."""
