"""What a close looks like on the wire, in plain text and secured: `python -m tests.capture`, by hand and as root."""
