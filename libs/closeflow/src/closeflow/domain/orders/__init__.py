"""One order: its status from facts, its executions, and what the broker says of it."""
