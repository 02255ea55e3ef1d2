"""What both doors can do: each call once, whichever door it came through."""
