"""The board with many closes that are open."""
