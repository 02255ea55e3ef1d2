"""What an operator does by hand, from the command line or over REST: what `closeflow.domain.operator` decides, each
action in one transaction with its record."""
