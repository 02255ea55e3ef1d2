"""One job each, named as in logs, metrics and docs/operations.md."""
