"""A position with everything one decision looks at: loaded under locks, and saved."""
