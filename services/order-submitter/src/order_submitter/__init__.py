"""Plans orders from submit-order and sends them to the broker."""
