"""Closes accepted per second through each door, beside an ORM session per request and the same SQL alone."""
