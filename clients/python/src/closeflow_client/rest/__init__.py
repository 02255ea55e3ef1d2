"""Calls over REST: how each is written as HTTP and read again, and the two clients of httpx that carry it."""
