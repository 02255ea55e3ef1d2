"""The usual wiring of the same parts, as it is written first: FastAPI, an ORM session per request and per event,
Debezium as it comes, Faust agents.

Its work is what ours is at its least: one outbox row per accept and one per close where ours has two, a market order
without a quote, no limits, no retries, no reconciling.
"""
