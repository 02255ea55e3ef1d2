"""Brings the broker's trade updates and backfill into broker-fill."""
