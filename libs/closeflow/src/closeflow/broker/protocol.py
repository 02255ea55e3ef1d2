"""What closeflow asks of a broker, and what a broker must say of itself.

An adapter is a class that is a `Broker` and a function that is a `TradeUpdates` (`closeflow.broker.trade_updates`); it
names itself nowhere but in its own package and the composition roots. `tests/brokers` has one in memory, and a table of
answers that every adapter has to give.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, Protocol

from closeflow.domain.market_data import Instrument, LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType, BrokerUpdate
from closeflow.domain.operator.non_trade_activity import NonTrade
from closeflow.domain.sending.broker_answers import CancelAnswer, LookUpAnswer, SubmitAnswer
from closeflow.domain.sending.ticket import Ticket

MayBegin = Callable[[], Awaitable[bool]]
HandingOver = Callable[[], None]
"""Whether the first byte of a send may still go. It commits that the send begins: ask it once, at the very end."""
SYMBOLS_PER_CALL: Final = 100
"""Callers ask for no more at once; an adapter whose broker takes fewer makes several calls of it."""


class IdDeduplication(StrEnum):
    """How long the broker refuses a client order id that it has seen: whether the same id may be sent again (R6)."""

    FOREVER = "forever"
    WHILE_OPEN = "while_open"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What of a broker decides how we send to it."""

    client_id_deduplication: IdDeduplication
    visibility_lag_s: float
    """How long an accepted order may stay invisible to a look-up."""
    refuses_to_exceed: bool
    """Whether every order says that it closes, and the broker refuses what would then open or exceed a position."""


class FailureCause(StrEnum):
    """Whose fault it is that a read was refused: whether asking otherwise may help."""

    QUESTION = "question"
    """The broker refused what was asked for: in a call about many, one of them may have spoiled it for all."""
    CALLER = "caller"
    """Asking for less would fare no better."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Positions:
    """`held` is the signed quantity by symbol. A position that cannot be read is named in `unreadable`, by its symbol
    where it has one, else by the empty text."""

    held: Mapping[str, Decimal]
    unreadable: frozenset[str] = frozenset()

    def tell_of(self, symbol: str) -> bool:
        """Whether what is held of the symbol is known; an unreadable position without a symbol may be of it."""
        return symbol in self.held or not self.unreadable & {symbol, ""}


class BrokerUnavailable(Exception):
    """A read had no usable answer. Says nothing about any order; asking again later is always safe.

    `about` says what went wrong as far as the answer tells: what was asked for, the caller (credentials, rate, no
    connection), or nothing that is known.
    """

    def __init__(
        self, reason: str, *, retry_after_s: float | None = None, about: FailureCause = FailureCause.UNKNOWN
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.about = about


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPage:
    """Executions in the broker's order of time, oldest first, each with its client order id resolved. What has no such
    id or cannot be read is logged and left out: it would hold up the others for ever. Unless it is known to be
    somebody else's, it may be the one that somebody looks for: ask `tell_of`."""

    updates: tuple[BrokerUpdate, ...]
    next_page: str | None
    """Pass it back for the next page; None when this was the last."""
    passed_over: tuple[str, ...] = ()
    """What was left out because it cannot be read, or because the broker denies its order."""
    unnamed: tuple[str, ...] = ()
    """What was left out because asking for its order got no answer: it may be had later."""
    doubtful: frozenset[str] = frozenset()
    """The symbols of both kinds, in every spelling that may be ours; the empty text for one that does not say it."""
    through: datetime | None = None
    """The latest time of an execution that the broker states on this page, left out or not."""

    def __add__(self, later: ExecutionPage) -> ExecutionPage:
        return ExecutionPage(
            updates=self.updates + later.updates,
            next_page=later.next_page,
            passed_over=self.passed_over + later.passed_over,
            unnamed=self.unnamed + later.unnamed,
            doubtful=self.doubtful | later.doubtful,
            through=max(filter(None, (self.through, later.through)), default=None),
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Ids of executions that the page has and cannot tell: what is concluded from their absence is wrong."""
        return (*self.passed_over, *self.unnamed)

    @property
    def is_whole(self) -> bool:
        """Whether `updates` are all the executions of ours on this page."""
        return not self.left_out

    def tell_of(self, symbol: str) -> bool:
        """Whether no execution of the symbol was left out, as far as is known."""
        return not self.doubtful & {symbol, ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class NonTradePage:
    """Activities that are no trades, oldest first, readable or not."""

    activities: tuple[NonTrade, ...]
    next_page: str | None
    """Pass it back for the next page; None when this was the last."""


@dataclass(frozen=True, slots=True)
class OpenOrders:
    """What the broker lists as open. `unreadable` are client order ids of ours of which nothing else can be read: such
    an order is there, and has to be asked about by itself."""

    updates: tuple[BrokerUpdate, ...]
    unreadable: tuple[str, ...] = ()


class Broker(Protocol):
    """One account at one broker, safe for concurrent calls in one event loop.

    `submit`, `look_up` and `cancel` never raise for what the wire or the broker does: every outcome is a value, because
    each proves something else. The other reads raise `BrokerUnavailable`, and nothing else, when they have no usable
    answer. Nothing here retries, and every call ends within a deadline of the adapter's.

    Whatever a broker says of an order is a `BrokerUpdate`. Callers rely on this of one:

    - `broker` is the adapter's `name`, `account_id` its own, `symbol` as our positions write it, `client_order_id` the
      one of the order (FIX ClOrdID, 11), also of somebody else's.
    - `event_id` is a function of what is said: what is said twice by one feed has one id, whoever asked.
    - `exec_id` (17) names an execution for ever within broker and account. Stream and `executions` name one alike, but
      for a prefix that ends in `::`; else it is recognised by its quantities (rule R3a).
    - `broker_seq` rises with every change of an order, alike in every feed, or is None everywhere: without it the later
      `transact_time` is taken for the newer.
    - `transact_time` is the broker's, `cum_quantity` (14) counts the order's executions, busts taken off. What is not
      stated is None, never guessed; a word in no table of the adapter's leaves `order_status` None and is in `reason`.
    """

    @property
    def name(self) -> str:
        """As in `accounts.broker`: part of every execution's identity, so it never changes."""
        ...

    @property
    def account_id(self) -> str:
        """Our name of the account; every answer is about it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Claims no more than a test of the desk's has shown."""
        ...

    async def submit(
        self,
        ticket: Ticket,
        *,
        begin_within_s: float | None = None,
        may_begin: MayBegin | None = None,
        handing_over: HandingOver | None = None,
    ) -> SubmitAnswer:
        """Send an order once, under the ticket's client order id; every send of one ticket says the same. When the
        first byte cannot go within `begin_within_s`, whatever is waited for, none goes and the answer is `NotSent`.
        `may_begin` is asked last of all, with nothing but the write to follow; when it says no, none goes either. Such
        a `NotSent` is `withheld` where the broker had no part in it. `handing_over` is called right before the bytes
        without which there is no order are handed to the network, for one order at a time; when it raises OSError, none
        are.

        `Refused` only for the broker's own refusal of this order, `Acknowledged` only for this very order, with a
        source of `submit`; a repeated id is `DuplicateId`. Whatever may have been written and has no such answer is
        `Unanswered`: a time-out is no refusal."""
        ...

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        """Ask for an order by the id that we gave it, also long after it ended. `NotFound` only for the broker's
        explicit word that there is none: it becomes evidence of absence (rule R6)."""
        ...

    async def cancel(self, ticket: Ticket, *, broker_order_id: str) -> CancelAnswer:
        """Ask for a cancel of the order that was sent as `ticket`; its outcome comes as a statement about the order, by
        the stream or when asked. `CancelRefused` and `NotFound` say nothing of its state."""
        ...

    async def open_orders(self) -> OpenOrders:
        """What the broker states of every order that it considers open, whoever sent it. Somebody else's that cannot be
        read is left out. That an order is not in the list proves nothing (rule R6)."""
        ...

    async def newest_orders(self) -> tuple[BrokerUpdate, ...]:
        """What the broker states of the orders that came to it last, ended ones too, one call's worth, whoever sent
        them. It saves look-ups: one that cannot be read is left out, and a broker without such a list has none."""
        ...

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        """One page of the executions, busts and corrections after a time, by the broker's own clock. A page that was
        read may be read again, and what is new comes behind it."""
        ...

    async def non_trades(self, *, after: datetime, page: str | None = None) -> NonTradePage:
        """One page of what changed the account after a time without a trade: expiries, assignments, splits, money."""
        ...

    async def position(self, symbol: str) -> Decimal:
        """The signed quantity the broker holds; 0 when it holds none."""
        ...

    async def submitted_at(self, client_order_id: str) -> datetime | None:
        """When the broker took the order, by its own clock; None where it does not say."""
        ...

    async def positions(self) -> Positions:
        """Every position the broker holds."""
        ...

    async def quotes(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Newest quotes of at most SYMBOLS_PER_CALL symbols of one asset type; one that nobody quotes is absent."""
        ...

    async def last_trades(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, LastTrade]:
        """Newest trades of at most SYMBOLS_PER_CALL symbols of one asset type; what is not known is absent."""
        ...

    async def instrument(self, asset_type: AssetType, symbol: str) -> Instrument:
        """Whether the broker knows the symbol and trades it. UNKNOWN only for its explicit word."""
        ...

    async def clock(self) -> MarketClock:
        """Whether the stock market is open, and the broker's time; both may be up to a minute old."""
        ...

    async def aclose(self) -> None:
        """Give up connections; no call follows."""
        ...
