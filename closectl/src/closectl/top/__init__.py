"""`closectl top`: what does not close, in a terminal."""
