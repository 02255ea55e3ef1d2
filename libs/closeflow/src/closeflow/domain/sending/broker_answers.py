"""What comes back from the broker for one call, sorted by what it proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from closeflow.domain.model import BrokerStatus, BrokerUpdate, RejectClass, SendAnswer


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has the order; `update` is its statement."""

    update: BrokerUpdate


@dataclass(frozen=True, slots=True)
class Refused:
    """A definitive refusal. It proves absence only as the answer to the first and only send (rule R3b)."""

    code: str
    reject_class: RejectClass
    reason: str
    mapped: bool = True
    """False when the code and message are not in the table: terminal for sending, and an incident."""


@dataclass(frozen=True, slots=True)
class DuplicateId:
    """The broker knows this client order id already: the order exists, look it up."""


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """The broker did not take the request for a reason that is not the order's (rate limit, credentials, account)."""

    reason: str
    retry_after_s: float | None
    credentials: bool = False
    """True for a key that is not accepted and a blocked account: no order can pass, a person must act."""
    account_wide: bool = False
    """True when the broker takes no new order of the account, whatever it is, and the key is not why."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing was written to the wire. `withheld`: for a reason of our own (no free connection, its time was over),
    which says nothing of the broker."""

    reason: str
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The broker may or may not have acted: time-out, broken connection, an error of its own, an answer that cannot be
    read or is about another order."""

    reason: str


@dataclass(frozen=True, slots=True)
class ForeignOrder(Unanswered):
    """An order that cannot be read (a multi-leg parent has neither symbol nor side), and whose id is none of ours."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """An explicit not-found from the right endpoint; the only answer that can become evidence of absence (rule R6)."""


@dataclass(frozen=True, slots=True)
class CancelAccepted:
    """The cancel was taken; its outcome comes as a statement."""


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """The broker will not cancel (not open, too late). Ask for the order's state: only that ends it."""

    reason: str


SubmitAnswer = Acknowledged | Refused | DuplicateId | NotAccepted | NotSent | Unanswered
LookUpAnswer = Acknowledged | NotFound | NotAccepted | NotSent | Unanswered
CancelAnswer = CancelAccepted | CancelRefused | NotFound | NotAccepted | NotSent | Unanswered
NOTHING_LEFT: Final = frozenset(
    {BrokerStatus.FILLED, BrokerStatus.CANCELED, BrokerStatus.EXPIRED, BrokerStatus.REJECTED, BrokerStatus.REPLACED}
)
"""What the broker states of an order that takes no cancel any more."""


def refused_cancel(found: LookUpAnswer) -> SendAnswer:
    """What a cancel that the broker refused counts as, by what it then says of the order. One that is over has nothing
    left to cancel, and its end is on its way to the books. Without a word on the order the refusal proves nothing."""
    match found:
        case Acknowledged(update):
            return SendAnswer.ACCEPTED if update.order_status in NOTHING_LEFT else SendAnswer.REJECTED
        case NotFound():
            return SendAnswer.REJECTED
        case NotAccepted() | NotSent() | Unanswered():
            return SendAnswer.UNKNOWN
        case _:
            assert_never(found)
