"""The way to the broker: the check before the wire, the next step of an order, claims and answers."""
