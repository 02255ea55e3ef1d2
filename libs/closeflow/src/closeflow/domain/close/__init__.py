"""One close: accepted, planned, priced, its outcome, and what time asks of it."""
