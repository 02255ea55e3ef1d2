"""One position: what may still be sold of it, what froze it, and how it compares with the broker."""
