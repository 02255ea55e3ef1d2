"""What a viewer may do about a close, each by one route of close-api, with what it does and what it does not do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from close_board.read_model import Close
from closeflow.domain.enums import RequestStatus
from closeflow.domain.trading_controls import TradingState


@dataclass(frozen=True, slots=True)
class Action:
    """`path` is close-api's, with a place for what it is about. `states` are those of a close in which it may help."""

    name: str
    verb: str
    confirm: str
    method: str
    path: str
    will: str
    will_not: str
    states: frozenset[RequestStatus] = frozenset()
    by_operator: bool = True


RETRY: Final = Action(
    "retry",
    "Retry",
    "Retry this close now",
    "POST",
    "/v1/operator/close-requests/{}/retry",
    "ask for the next attempt of this close now, for what is still owed, instead of at its time.",
    "send anything while the market, the kill switch or the circuit breaker says no, nor while an earlier order of the "
    "position may still fill; it is refused then, and says why.",
    frozenset({RequestStatus.RETRYABLE}),
)
CANCEL: Final = Action(
    "cancel",
    "Cancel",
    "Cancel this close",
    "POST",
    "/v1/close-requests/{}/cancel",
    "withdraw this close where nothing was sent yet, else ask the broker to cancel its order; the close then ends with "
    "what is filled.",
    "take back what is filled, or what still fills before the broker has cancelled the order.",
    frozenset({RequestStatus.PENDING, RequestStatus.SUBMITTED, RequestStatus.RETRYABLE}),
    by_operator=False,
)
ABANDON: Final = Action(
    "abandon",
    "Abandon",
    "Abandon this close",
    "POST",
    "/v1/operator/close-requests/{}/abandon",
    "give this close up: it fails as abandoned, and its position is open again, with what it holds.",
    "send or cancel anything at the broker; while an order may still fill it is refused.",
    frozenset({RequestStatus.RETRYABLE, RequestStatus.FAILED}),
)
OF_CLOSES: Final[Mapping[str, Action]] = {one.name: one for one in (RETRY, CANCEL, ABANDON)}

CONTROL: Final = Action(
    "control",
    "Set",
    "Set it",
    "PUT",
    "/v1/operator/trading-controls/{}",
    "decide what may be sent from its commit on, by every process.",
    "cancel an order that is at the broker, or forget a close: what is held goes on when it is released.",
)
STATES: Final = (
    (TradingState.HALTED, "nothing is sent, and new closes are refused"),
    (TradingState.REDUCING, "only what makes a position smaller is sent; closes do"),
    (TradingState.ACTIVE, "released: everything is sent"),
)
CLOSE_INCIDENT: Final = Action(
    "close-incident",
    "Close incident",
    "Close this incident",
    "POST",
    "/v1/operator/incidents/{}/close",
    "close this incident, with your reason as its resolution; a close that it froze goes on.",
    "change anything that the incident is about. If that still stands, it is opened again.",
)


def actions_for(close: Close, *, left: bool, may_operate: bool) -> list[Action]:
    """Those that may help now. `left` is whether it failed and its position is still held."""
    found = [one for one in OF_CLOSES.values() if close.status in one.states]
    if not left:
        found = [one for one in found if not (one is ABANDON and close.status is RequestStatus.FAILED)]
    return [one for one in found if may_operate or not one.by_operator]
