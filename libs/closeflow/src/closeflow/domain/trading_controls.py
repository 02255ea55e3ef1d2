"""The kill switch and the limits of an account: what they say, and when an order would break them (invariants 18, 19).

Both are read in the transaction that decides and never kept: whoever reads a switch once has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from closeflow.domain.account_limits import (
    AccountLimits,
    is_window_over,
)
from closeflow.domain.frozen import replace

GLOBAL: Final = "global"
"""The scope of `trading_controls` that is over every account; the other scopes are account ids."""
TRADING_HALTED: Final = "trading_halted"


class TradingState(StrEnum):
    """From the mildest to the strictest."""

    ACTIVE = "active"
    REDUCING = "reducing"
    """Only what makes a position smaller may be sent. Every close does, so closes pass."""
    HALTED = "halted"


_STRICTNESS: Final = tuple(TradingState)


def effective_state(states: Mapping[str, str], account_id: str) -> TradingState:
    """The stricter of the global state and the account's, from the rows of `trading_controls` by scope.

    Without a global row, or with a state that is not known here, trading is halted: a switch that cannot be read is a
    halt. An account without a row of its own has only the global state.
    """
    stated = [states.get(GLOBAL), states.get(account_id, TradingState.ACTIVE)]
    known = [TradingState(one) if one in _STRICTNESS else TradingState.HALTED for one in stated]
    return max(known, key=_STRICTNESS.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What holds for one account at the moment of a decision. Without limits nothing may be sent."""

    account_id: str
    state: TradingState
    limits: AccountLimits | None

    @property
    def halted(self) -> bool:
        """Whether no new order of the account may leave (invariant 18)."""
        return self.state is TradingState.HALTED


def counted(controls: Controls, *, now: datetime) -> Controls:
    """After one more submit, which was claimed while there was room for it."""
    limits = controls.limits
    assert limits is not None, "nothing is claimed without limits"
    if is_window_over(limits, now):
        limits = replace(limits, window_started_at=now, window_count=0)
    return replace(controls, limits=replace(limits, window_count=limits.window_count + 1))
