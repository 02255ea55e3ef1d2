"""Why a close request or an order is in the state that it is in: the codes that callers and operators read."""

from __future__ import annotations

from typing import Final

USER_CANCEL: Final = "canceled_by_user"
RETRIES_EXHAUSTED: Final = "retries_exhausted"
DEADLINE_PASSED: Final = "deadline_passed"
EXTERNALLY_CLOSED: Final = "externally_closed"
RESIDUAL: Final = "residual_below_lot"
DUST: Final = "residual_below_minimum_notional"
BELOW_MINIMUM_NOTIONAL: Final = "below_minimum_notional"
"""The reject code of an order that is worth less than the broker takes orders for."""
WITHDRAWN: Final = "withdrawn_by_late_fill"
SIDE_CHANGED: Final = "side_changed"
ABANDONED: Final = "abandoned"
REVERSED: Final = "reversed"
