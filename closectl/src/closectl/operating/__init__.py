"""What an operator does by hand, as commands, and those of its verbs that ask the broker first."""
