"""Runs the whole system on the embedded stack: the demo, make run, and the system tests."""
