"""What the invariants are checked on, and those that one query checks."""
