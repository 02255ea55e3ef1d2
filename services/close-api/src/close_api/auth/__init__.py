"""Who is calling, what they may, and how much of it."""
