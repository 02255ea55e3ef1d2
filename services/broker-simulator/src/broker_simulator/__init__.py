"""An Alpaca-shaped broker with scriptable faults."""
