"""The closeflow command line."""
