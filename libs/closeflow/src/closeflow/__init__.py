"""Domain, contracts, storage, Kafka and broker parts shared by the closeflow services.

Whoever imports any of it counts with DIGITS digits, in every thread: services, command line, demo and tests alike.
"""

import decimal
from typing import Final

DIGITS: Final = 40
"""A quantity has up to 33 digits (15 before the point, 18 after it). Python's own 28 would round their sums, and a
position of which PostgreSQL says that it is closed would keep a rest."""

decimal.DefaultContext.prec = DIGITS  # What a thread that begins from now on starts with.
decimal.getcontext().prec = DIGITS
