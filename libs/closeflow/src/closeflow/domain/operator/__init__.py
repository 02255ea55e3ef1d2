"""What an operator may do by hand, and what it takes."""
