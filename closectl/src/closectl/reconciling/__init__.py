"""`closectl reconcile`: what accounting is told, what is booked and what the broker lists, against each other."""
