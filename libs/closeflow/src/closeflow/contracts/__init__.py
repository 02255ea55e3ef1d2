"""What crosses a process border; mirrors schemas/."""
