"""The script's vocabulary: what the broker does with an order instead of simply executing it.

A `Behaviour` answers five questions, each with an ordinary default:
`answer` how the POST is answered, `repeat` how a second POST of the same client order id is refused, `execution` what
happens to the order once accepted, `stream` what the trade updates suffer on the way, `cancel` how a cancel is treated.
Times are seconds. Unknown fields are refused.
"""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Quantity = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Status = Annotated[int, Field(ge=400, le=599)]


class Spec(BaseModel):
    """The base of what crosses the control endpoint: frozen, and a field that nobody knows is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# How the POST is answered -------------------------------------------------------------------------------------------


class Accept(Spec):
    """Accept and say so."""

    kind: Literal["accept"] = "accept"


class Reject(Spec):
    """Accept nothing; answer with this status, code and message."""

    kind: Literal["reject"] = "reject"
    status: Status = 403
    code: int = 40310000
    message: str = "order rejected by script"
    retry_after_s: Seconds | None = None


class AcceptSilently(Spec):
    """Accept, then never answer, or only after `answer_after_s`: the client's time-out after the order was taken."""

    kind: Literal["accept_silently"] = "accept_silently"
    answer_after_s: Seconds | None = None


class AcceptLate(Spec):
    """Hold the request for `hold_s`, then accept it, even when the client has given up meanwhile."""

    kind: Literal["accept_late"] = "accept_late"
    hold_s: Seconds


class AcceptThenFail(Spec):
    """Accept, then spoil the answer: cut the connection, a 500, HTML, half a body, a redirect, another order's body."""

    kind: Literal["accept_then_fail"] = "accept_then_fail"
    how: Literal["reset", "server_error", "html", "truncated", "redirect", "foreign"]


Answer = Annotated[Accept | Reject | AcceptSilently | AcceptLate | AcceptThenFail, Field(discriminator="kind")]


class RefuseRepeat(Spec):
    """Refuse a repeated client order id with something else than "must be unique"."""

    status: Status = 403
    code: int = 40310000
    message: str = "repeated order refused"


# What happens to the accepted order ---------------------------------------------------------------------------------


class Step(Spec):
    """One thing that happens to the order, `after_s` after the step before it (the first: after acceptance).

    A fill without quantity fills all that is left; without price it is at the quote when marketable, else at the limit.
    A split multiplies the resting order and the position by `quantity`, and nobody is told; `replace` ends the order as
    one that somebody replaced by hand.
    """

    do: Literal["fill", "cancel", "expire", "reject", "suspend", "done_for_day", "split", "replace"]
    after_s: Seconds = 0
    quantity: Quantity | None = None
    price: Price | None = None


class MatchQuote(Spec):
    """Execute when the quote allows it: the ordinary broker."""

    kind: Literal["match"] = "match"


class FillAtOnce(Spec):
    """Fill all of it, whatever the quote says."""

    kind: Literal["fill"] = "fill"
    after_s: Seconds = 0
    price: Price | None = None


class FillInParts(Spec):
    """Fill in `parts` about equal parts, one every `every_s`."""

    kind: Literal["parts"] = "parts"
    parts: Annotated[int, Field(ge=1, le=1000)]
    every_s: Seconds = 0


class FillThen(Spec):
    """Fill `quantity`, then cancel or expire the rest, or leave it resting for ever."""

    kind: Literal["fill_then"] = "fill_then"
    quantity: Quantity
    then: Literal["cancel", "expire", "done_for_day", "suspend", "rest"]
    after_s: Seconds = 0


class NeverFill(Spec):
    """Stay open until it is cancelled."""

    kind: Literal["never"] = "never"


class RunSteps(Spec):
    """Do exactly these steps; what is left afterwards stays open."""

    kind: Literal["steps"] = "steps"
    steps: Annotated[tuple[Step, ...], Field(max_length=1000)]


Execution = Annotated[
    MatchQuote | FillAtOnce | FillInParts | FillThen | NeverFill | RunSteps, Field(discriminator="kind")
]


# Stream and cancel --------------------------------------------------------------------------------------------------


class StreamFaults(Spec):
    """What this order's trade updates suffer: sent `copies` times, late, in reverse order, or not at all. With `ahead`
    each has the order as it is after all that happened together with it.

    Reordered updates are held until the order is done (at most `hold_s`), then sent newest first.
    """

    copies: Annotated[int, Field(ge=1, le=100)] = 1
    delay_s: Seconds = 0
    reorder: bool = False
    ahead: bool = False
    hold_s: Seconds = 2
    lose: bool = False


class AcceptCancel(Spec):
    """Cancel after `after_s`; the order is pending_cancel meanwhile and scripted fills go on. None: never."""

    kind: Literal["accept"] = "accept"
    after_s: Seconds | None = 0


class RefuseCancel(Spec):
    """Refuse the cancel, `times` times (None: always), although the order lives."""

    kind: Literal["refuse"] = "refuse"
    status: Status = 422
    code: int = 42210000
    message: str = "order is not cancelable"
    times: Annotated[int, Field(ge=1)] | None = None


CancelAnswer = Annotated[AcceptCancel | RefuseCancel, Field(discriminator="kind")]


class Shown(Spec):
    """JSON fields that are shown otherwise than they are: None, odd forms, too many digits. A multi-leg parent is an
    order without symbol and side, whose activities have none either."""

    order: dict[str, JsonValue] = {}
    update: dict[str, JsonValue] = {}
    activity: dict[str, JsonValue] = {}


MULTI_LEG = Shown(order={"symbol": None, "side": None, "order_class": "mleg"}, activity={"symbol": None, "side": None})


class Behaviour(Spec):
    """Everything that is scripted for one order. `visible_after_s`: how long look-ups answer not-found.

    `executions`: `unnamed` means that the order states what is filled, but none of its fills is on the stream or
    among the activities, until `name_executions` lets the activities have them.
    """

    answer: Answer = Accept()
    repeat: RefuseRepeat | None = None
    execution: Execution = MatchQuote()
    stream: StreamFaults = StreamFaults()
    cancel: CancelAnswer = AcceptCancel()
    visible_after_s: Seconds = 0
    executions: Literal["named", "unnamed"] = "named"
    shown: Shown = Shown()


ORDINARY = Behaviour()


class Match(Spec):
    """Which orders a rule is for: at most one of the three; none of them means every order."""

    client_order_id: str | None = None
    client_order_id_prefix: str | None = None
    symbol: str | None = None

    @model_validator(mode="after")
    def _at_most_one(self) -> "Match":
        named = [self.client_order_id, self.client_order_id_prefix, self.symbol]
        if sum(value is not None for value in named) > 1:
            raise ValueError("name at most one of client_order_id, client_order_id_prefix, symbol")
        return self


class Rule(Spec):
    """A behaviour for the next `count` matching orders (None: for all of them)."""

    match: Match = Match()
    count: Annotated[int, Field(ge=1)] | None = None
    behaviour: Behaviour


def steps_of(execution: Execution, quantity: Decimal) -> tuple[Step, ...] | None:
    """The script of an order of this quantity; None when it is matched against the quote instead."""
    match execution:
        case MatchQuote():
            return None
        case FillAtOnce(after_s=after_s, price=price):
            return (Step(do="fill", after_s=after_s, price=price),)
        case FillInParts(parts=parts, every_s=every_s):
            sizes = _split(quantity, parts)
            return tuple(Step(do="fill", after_s=every_s, quantity=size) for size in sizes)
        case FillThen(quantity=filled, then=then, after_s=after_s):
            first = Step(do="fill", quantity=filled)
            return (first,) if then == "rest" else (first, Step(do=then, after_s=after_s))
        case NeverFill():
            return ()
        case RunSteps(steps=steps):
            return steps


def _split(quantity: Decimal, parts: int) -> list[Decimal]:
    """About equal parts that add up to `quantity`; whole quantities are split into whole parts (so maybe fewer)."""
    if quantity == quantity.to_integral_value():
        whole, extra = divmod(int(quantity), parts)
        return [Decimal(size) for size in (whole + (i < extra) for i in range(parts)) if size]
    share = (quantity / parts).quantize(Decimal("0.000000001"))
    return [share] * (parts - 1) + [quantity - share * (parts - 1)] if share else [quantity]
