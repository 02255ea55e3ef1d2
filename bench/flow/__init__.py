"""What a close costs from the request to the closed position, through every real part, beside other ways to do it."""
