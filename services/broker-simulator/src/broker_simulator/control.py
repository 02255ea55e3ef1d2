"""A small client of the control endpoint, for tests and the demo.

    control = Control("http://127.0.0.1:8090")
    control.script(Behaviour(execution=FillInParts(parts=3, every_s=0.2)), symbol="AAPL", count=1)
    control.outage(Outage(kind="rate_limit", requests=5, retry_after_s=1))
    assert control.order("cf-…-1").accepted == 1

Every call raises ControlRefused with the simulator's words when it refuses, httpx.TransportError when it is not there.
"""

import json
import ssl
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import TracebackType
from typing import Literal, Self

import httpx
from pydantic import BaseModel, TypeAdapter

from .behaviour import (
    MULTI_LEG,
    Accept,
    AcceptCancel,
    AcceptLate,
    AcceptSilently,
    AcceptThenFail,
    Behaviour,
    FillAtOnce,
    FillInParts,
    FillThen,
    Match,
    MatchQuote,
    NeverFill,
    RefuseCancel,
    RefuseRepeat,
    Reject,
    Rule,
    RunSteps,
    Shown,
    Step,
    StreamFaults,
)
from .calls import CallLimit, CallsSeen
from .control_models import (
    Bust,
    Capabilities,
    Correction,
    ExecutionCharge,
    ExecutionSeen,
    NamedOrder,
    OrderSeen,
    OutageState,
    PositionSpec,
    Rescript,
    RuleState,
    StreamDrop,
    StreamSilence,
    StreamState,
)
from .edge import Outage
from .market_clock import MarketHours
from .non_trade import NonTrade
from .quotes import Pin
from .settings import ActivityIds, Deduplication, Oversell, Reversals

__all__ = [
    "MULTI_LEG",
    "Accept",
    "AcceptCancel",
    "AcceptLate",
    "AcceptSilently",
    "AcceptThenFail",
    "Behaviour",
    "CallLimit",
    "CallsSeen",
    "Control",
    "ControlRefused",
    "ExecutionSeen",
    "FillAtOnce",
    "FillInParts",
    "FillThen",
    "MarketHours",
    "Match",
    "MatchQuote",
    "NeverFill",
    "NonTrade",
    "OrderSeen",
    "Outage",
    "Pin",
    "PositionSpec",
    "RefuseCancel",
    "RefuseRepeat",
    "Reject",
    "Rule",
    "RunSteps",
    "Shown",
    "Step",
    "StreamFaults",
]

_ORDERS = TypeAdapter(list[OrderSeen])
_RULES = TypeAdapter(list[RuleState])
_OUTAGES = TypeAdapter(list[OutageState])
_POSITIONS = TypeAdapter(dict[str, Decimal])


class ControlRefused(RuntimeError):
    """The control endpoint refused a call; the text names the field and what is wrong with it."""


class Control:
    """One simulator's control endpoint; each method is one call."""

    def __init__(self, base_url: str, *, timeout_s: float = 10, verify: ssl.SSLContext | bool = True) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the simulator runs on."""
        self._http.close()

    # script

    def script(
        self,
        behaviour: Behaviour,
        *,
        client_order_id: str | None = None,
        client_order_id_prefix: str | None = None,
        symbol: str | None = None,
        count: int | None = None,
    ) -> None:
        """This behaviour for the next `count` matching orders (None: all); without a match, for every order."""
        match = Match(client_order_id=client_order_id, client_order_id_prefix=client_order_id_prefix, symbol=symbol)
        self._call("POST", "/rules", Rule(match=match, count=count, behaviour=behaviour))

    def replace_script(self, rules: Iterable[Rule]) -> None:
        """These rules and no others, in this order."""
        self._call("PUT", "/rules", [rule.model_dump(mode="json") for rule in rules])

    def rules(self) -> list[RuleState]:
        """The rules that are active, with how often each applies still."""
        return _RULES.validate_json(self._call("GET", "/rules"))

    def clear_script(self) -> None:
        """No rules: the broker executes as it would by itself."""
        self._call("DELETE", "/rules")

    def rescript(self, client_order_id: str, behaviour: Behaviour) -> None:
        """Change what happens to the open orders of this client order id from now on."""
        self._call("POST", "/orders/rescript", Rescript(client_order_id=client_order_id, behaviour=behaviour))

    def name_executions(self, client_order_id: str) -> None:
        """Let the activities have the fills of this order that its script left unnamed."""
        self._call("POST", "/orders/name-executions", NamedOrder(client_order_id=client_order_id))

    def bust(self, execution_id: str, *, revive: bool = False) -> ExecutionSeen:
        """Take an execution back. With `revive`, an order that was over lives again, and rests until rescripted."""
        answer = self._call("POST", "/executions/bust", Bust(execution_id=execution_id, revive=revive))
        return ExecutionSeen.model_validate_json(answer)

    def correct(
        self, execution_id: str, *, qty: Decimal | str, price: Decimal | str, revive: bool = False
    ) -> ExecutionSeen:
        """Give an execution another quantity and price; more than the order's quantity is an overfill."""
        change = Correction(execution_id=execution_id, qty=Decimal(qty), price=Decimal(price), revive=revive)
        return ExecutionSeen.model_validate_json(self._call("POST", "/executions/correct", change))

    def charge(self, execution_id: str, amount: Decimal | str, *, activity_type: Literal["COMM", "FEE"] = "FEE") -> str:
        """List a fee or commission for an execution; returns the id of the activity. A negative amount gives back."""
        charge = ExecutionCharge(execution_id=execution_id, amount=Decimal(amount), activity_type=activity_type)
        return str(json.loads(self._call("POST", "/executions/charge", charge))["id"])

    def outage(self, outage: Outage) -> None:
        """Add an outage; it begins at once."""
        self._call("POST", "/outages", outage)

    def outages(self) -> list[OutageState]:
        """The outages that are active, with how many requests each takes still."""
        return _OUTAGES.validate_json(self._call("GET", "/outages"))

    def clear_outages(self) -> None:
        """End them all."""
        self._call("DELETE", "/outages")

    def limit_calls(self, limit: CallLimit | None) -> None:
        """A limit on the calls to all endpoints together; None takes it away."""
        if limit is None:
            self._call("DELETE", "/call-limit")
        else:
            self._call("PUT", "/call-limit", limit)

    def calls(self) -> CallsSeen:
        """How often each of Alpaca's routes was called since the start or a reset."""
        return CallsSeen.model_validate_json(self._call("GET", "/calls"))

    def set_capabilities(
        self,
        *,
        deduplication: Deduplication | None = None,
        activity_ids: ActivityIds | None = None,
        reversals: Reversals | None = None,
        oversell: Oversell | None = None,
    ) -> None:
        """Change how the broker treats ids, reversals and oversells; what is None stays as it is."""
        change = Capabilities(
            deduplication=deduplication, activity_ids=activity_ids, reversals=reversals, oversell=oversell
        )
        self._call("PATCH", "/capabilities", change)

    def reset(self) -> None:
        """Forget everything; positions are those of the positions file again."""
        self._call("POST", "/reset")

    # stream

    def drop_stream(self, refuse_for_s: float = 0) -> int:
        """Cut every connection and refuse new ones for a while; returns how many listened."""
        answer = self._call("POST", "/stream/drop", StreamDrop(refuse_for_s=refuse_for_s))
        return StreamState.model_validate_json(answer).listeners

    def silence_stream(self, for_s: float) -> None:
        """For so many seconds the stream keeps its connections and tells nothing; what it would have told is lost."""
        self._call("POST", "/stream/silence", StreamSilence(for_s=for_s))

    def heal_stream(self) -> None:
        """End a drop or a silence of the stream, and send what reordering still withholds."""
        self._call("POST", "/stream/heal")

    def listeners(self) -> int:
        """How many connections are subscribed to trade updates."""
        return StreamState.model_validate_json(self._call("GET", "/stream")).listeners

    # market

    def pin_quote(
        self,
        symbol: str,
        bid: Decimal | str,
        ask: Decimal | str,
        *,
        age_s: float = 0,
        tick: Decimal | str | None = None,
    ) -> None:
        """With `tick`, a limit that is no multiple of it is refused."""
        pin = {"bid": str(bid), "ask": str(ask), "age_s": age_s, "tick": None if tick is None else str(tick)}
        self._call("PUT", "/quotes", {symbol: pin})

    def pin(self, symbol: str, pin: Pin) -> None:
        """Any quote, or how the symbol spoils market data calls."""
        self._call("PUT", "/quotes", {symbol: pin.model_dump(mode="json")})

    def withhold_quote(self, symbol: str) -> None:
        """The broker has no quote for this symbol."""
        self._call("PUT", "/quotes", {symbol: {"missing": True}})

    def unpin_quotes(self) -> None:
        """Let every symbol's price walk again."""
        self._call("DELETE", "/quotes")

    def set_hours(self, hours: MarketHours) -> None:
        """Open or close the market for stocks and options."""
        self._call("PUT", "/clock", hours)

    def positions(self) -> dict[str, Decimal]:
        """Signed quantities by symbol; closed ones are absent."""
        return _POSITIONS.validate_json(self._call("GET", "/positions"))

    def set_positions(self, positions: Iterable[PositionSpec]) -> None:
        """The broker holds these from now on, and nothing else."""
        self._call("PUT", "/positions", [position.model_dump(mode="json") for position in positions])

    def import_positions(self, csv_text: str) -> None:
        """Replace every position by this positions file."""
        self._send("PUT", "/positions.csv", content=csv_text.encode(), content_type="text/csv")

    def book_non_trade(self, done: NonTrade) -> str:
        """Expire, assign, exercise, split, … a holding; returns the id of the activity."""
        return str(json.loads(self._call("POST", "/non-trades", done))["id"])

    # what it received

    def orders(self, *, prefix: str | None = None) -> list[OrderSeen]:
        """One entry per client order id that was ever POSTed."""
        return _ORDERS.validate_json(self._call("GET", "/orders", params={"prefix": prefix} if prefix else None))

    def order(self, client_order_id: str) -> OrderSeen:
        """All about one client order id; with zero posts when none ever arrived."""
        found = _ORDERS.validate_json(self._call("GET", "/orders", params={"client_order_id": client_order_id}))
        return found[0] if found else OrderSeen(client_order_id=client_order_id, posts_received=0, accepted=0)

    def _call(
        self,
        method: str,
        path: str,
        body: BaseModel | Mapping[str, object] | list[object] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> bytes:
        if body is None:
            return self._send(method, path, params=params)
        content = TypeAdapter(object).dump_json(body)
        return self._send(method, path, content=content, content_type="application/json")

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        content_type: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> bytes:
        headers = {"content-type": content_type} if content_type else {}
        answer = self._http.request(method, f"/control{path}", content=content, headers=headers, params=params)
        if answer.is_error:
            raise ControlRefused(f"{method} /control{path}: {answer.status_code} {answer.text}")
        return answer.content
