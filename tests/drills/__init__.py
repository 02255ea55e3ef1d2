"""Long measurements of the whole system in trouble: `python -m tests.drills.<name>`, or `make drills` for all of them.

Each prints the figures that it saw and exits with 1 when a line does not hold. They take minutes, so they are no part
of `make test`.
"""
