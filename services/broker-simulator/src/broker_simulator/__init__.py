"""An Alpaca-shaped broker with scriptable faults."""

import decimal
from typing import Final

DIGITS: Final = 40
"""As closeflow counts, of which nothing is imported here: a position of 33 digits must add up on both sides."""

decimal.DefaultContext.prec = DIGITS  # What a thread that begins from now on starts with.
decimal.getcontext().prec = DIGITS
