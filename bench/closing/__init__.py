"""How long a position takes from the request to closed, through every real part."""
