"""The operators' page: what is not closing, why, and what happens next."""
