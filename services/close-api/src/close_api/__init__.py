"""Accepts closes over REST; one transaction writes the request and its outbox row."""
