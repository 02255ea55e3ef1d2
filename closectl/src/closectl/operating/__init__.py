"""What an operator does by hand: the decisions of `closeflow.domain`, each in one transaction with its record."""
