"""Starts and stops the embedded PostgreSQL, Kafka and Connect."""
