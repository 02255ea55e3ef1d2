"""Closes accepted per second over REST: close-api beside a plain FastAPI service with an ORM session per request."""
