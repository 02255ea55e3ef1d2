"""What crosses the control endpoint, in both directions. `broker_simulator.behaviour` has the script's vocabulary."""

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .assets import AssetType
from .behaviour import Behaviour, Price, Quantity, Rule, Seconds, Spec
from .edge import Outage
from .orders import ExecutionKind
from .settings import ActivityIds, Deduplication, Oversell, Reversals


class RuleState(Spec):
    """A rule that is active; `remaining` orders get it still, None for all."""

    id: int
    rule: Rule
    remaining: int | None


class OutageState(Spec):
    """An outage that is active; it takes `remaining` requests still, None for all."""

    outage: Outage
    remaining: int | None


class StreamDrop(Spec):
    """Cut every connection; refuse new ones for `refuse_for_s`. Fills go on."""

    refuse_for_s: Seconds = 0


class StreamSilence(Spec):
    """Keep the connections and lose every update for `for_s`."""

    for_s: Seconds


class StreamState(Spec):
    """How many connections are subscribed."""

    listeners: int


class Capabilities(Spec):
    """What can be changed while running; what is left out stays as it is."""

    deduplication: Deduplication | None = None
    activity_ids: ActivityIds | None = None
    reversals: Reversals | None = None
    oversell: Oversell | None = None


class PositionSpec(Spec):
    """A position to be held; the quantity is signed."""

    symbol: str
    asset_type: AssetType
    quantity: Decimal


class Rescript(Spec):
    """A new behaviour for the open orders of one client order id."""

    client_order_id: str
    behaviour: Behaviour


class Rescripted(Spec):
    """How many open orders were given the new behaviour."""

    orders: int


class Bust(Spec):
    """Take an execution back; with `revive`, an order that was over lives again and rests."""

    execution_id: str
    revive: bool = False


class Correction(Bust):
    """Give an execution another quantity and price."""

    qty: Quantity
    price: Price


class ExecutionCharge(Spec):
    """What an execution costs, listed as an activity of its own; below 0 it is given back."""

    execution_id: str
    amount: Decimal
    activity_type: Literal["COMM", "FEE"] = "FEE"


class NamedOrder(Spec):
    """The order that a call is about."""

    client_order_id: str


class Reported(BaseModel):
    """What the simulator tells; frozen, tolerant of more fields than this version knows."""

    model_config = ConfigDict(frozen=True)


class PostSeen(Reported):
    """One POST as it arrived. `outcome`: `accepted`, `held`, `refused <status> <code>: <message>`, `outage: <kind>`."""

    at: str
    body: str
    outcome: str
    order_id: str | None


class ExecutionSeen(Reported):
    """A fill, or the bust or correction of the execution that `ref_id` names."""

    execution_id: str
    activity_id: str
    qty: Decimal
    price: Decimal
    cum_qty: Decimal
    at: str
    kind: ExecutionKind = "fill"
    ref_id: str | None = None


class BrokerOrderSeen(Reported):
    """An order as the broker has it, with its executions."""

    order_id: str
    symbol: str
    side: Literal["buy", "sell"]
    qty: Decimal
    status: str
    filled_qty: Decimal
    broker_seq: int
    executions: tuple[ExecutionSeen, ...]


class OrderSeen(Reported):
    """Everything about one client order id: `accepted` above 1 means that the broker took it more than once."""

    client_order_id: str
    posts_received: int
    accepted: int
    bodies: tuple[str, ...] = ()
    posts: tuple[PostSeen, ...] = ()
    orders: tuple[BrokerOrderSeen, ...] = ()
