"""The adapter of a second broker: execution reports of `tests.brokers.venue` instead of REST.

It shows that the protocols of `closeflow.broker` ask for nothing that only one broker has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeVar

from closeflow.broker import (
    BrokerUnavailable,
    Capabilities,
    ExecutionPage,
    FailureCause,
    HandingOver,
    IdDeduplication,
    MayBegin,
    OpenOrders,
    Positions,
)
from closeflow.broker.protocol import NonTradePage
from closeflow.broker.trade_updates import Message, StreamLost
from closeflow.domain.ids import broker_update_id
from closeflow.domain.market_data import Instrument, LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType, BrokerStatus, BrokerUpdate, ExecType, RejectClass, Side, UpdateSource
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelAnswer,
    CancelRefused,
    DuplicateId,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Refused,
    SubmitAnswer,
    Unanswered,
)
from closeflow.domain.sending.ticket import Ticket

from .venue import (
    DUPLICATE_ORDER,
    EXCHANGE_CLOSED,
    LIVE,
    TOO_LATE,
    UNKNOWN_ORDER,
    UNKNOWN_SYMBOL,
    CancelReject,
    ExecutionReport,
    Venue,
)

NAME: Final = "fix"
EXEC_TYPES: Final = {
    "0": ExecType.NEW,
    "4": ExecType.CANCELED,
    "8": ExecType.REJECTED,
    "F": ExecType.TRADE,
    "H": ExecType.TRADE_CANCEL,
    "I": ExecType.ORDER_STATUS,
}
STATUSES: Final = {
    "0": BrokerStatus.NEW,
    "1": BrokerStatus.PARTIALLY_FILLED,
    "2": BrokerStatus.FILLED,
    "4": BrokerStatus.CANCELED,
}
SIDES: Final = {"1": Side.BUY, "2": Side.SELL}
CODES: Final = {side: code for code, side in SIDES.items()}
REFUSALS: Final = {
    UNKNOWN_SYMBOL: ("unknown_symbol", RejectClass.TERMINAL),
    EXCHANGE_CLOSED: ("market_closed", RejectClass.RETRYABLE),
}
EXECUTIONS: Final = ("F", "H")
PER_PAGE: Final = 2

Answer = TypeVar("Answer")
NoReport = NotSent | NotAccepted | Unanswered


class InMemoryBroker:
    """One account at a venue; its `trade_updates` are the reports that nobody asked for."""

    def __init__(self, venue: Venue, *, account_id: str = "acc-1") -> None:
        self.venue = venue
        self.name = NAME
        self.account_id = account_id
        self.capabilities = Capabilities(
            client_id_deduplication=IdDeduplication.FOREVER, visibility_lag_s=0, refuses_to_exceed=False
        )

    async def submit(
        self,
        ticket: Ticket,
        *,
        begin_within_s: float | None = None,
        may_begin: MayBegin | None = None,
        handing_over: HandingOver | None = None,
    ) -> SubmitAnswer:
        if not self.venue.logged_on:
            return NotSent("logged out")
        if begin_within_s is not None and begin_within_s <= 0:
            return NotSent("its time is over", withheld=True)
        if may_begin is not None and not await may_begin():
            return NotSent("it may not begin any more", withheld=True)
        try:
            if handing_over is not None:
                handing_over()
        except OSError as error:
            return NotSent(str(error), withheld=True)
        report = self._ask(
            lambda: self.venue.enter(
                cl_ord_id=ticket.client_order_id,
                symbol=ticket.symbol,
                side=CODES[ticket.side],
                order_qty=ticket.quantity,
            )
        )
        if not isinstance(report, ExecutionReport):
            return report
        if report.ord_rej_reason == DUPLICATE_ORDER:
            return DuplicateId()
        if report.ord_rej_reason is not None:
            code, reject_class = REFUSALS.get(report.ord_rej_reason, ("", RejectClass.TERMINAL))
            reason = f"OrdRejReason {report.ord_rej_reason}"
            return Refused(code or f"fix_{report.ord_rej_reason}", reject_class, reason, mapped=bool(code))
        return Acknowledged(self._update(report, UpdateSource.SUBMIT))

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        report = self._ask(lambda: self.venue.status(cl_ord_id=client_order_id))
        if not isinstance(report, ExecutionReport):
            return report
        if report.ord_rej_reason == UNKNOWN_ORDER:
            return NotFound()
        return Acknowledged(self._update(report, UpdateSource.QUERY))

    async def cancel(self, ticket: Ticket, *, broker_order_id: str) -> CancelAnswer:
        answer = self._ask(
            lambda: self.venue.cancel(
                orig_cl_ord_id=ticket.client_order_id, symbol=ticket.symbol, side=CODES[ticket.side]
            )
        )
        match answer:
            case ExecutionReport():
                return CancelAccepted()
            case CancelReject(cxl_rej_reason=reason):
                return CancelRefused("too late") if reason == TOO_LATE else NotFound()
            case _:
                return answer

    async def open_orders(self) -> OpenOrders:
        self._read()
        live = [one for one in self.venue.orders.values() if one.ord_status in LIVE]
        states = [self.venue.status(cl_ord_id=one.cl_ord_id) for one in live]
        return OpenOrders(tuple(self._update(one, UpdateSource.QUERY) for one in states))

    async def newest_orders(self) -> tuple[BrokerUpdate, ...]:
        return ()  # FIX has no such list.

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        self._read()
        reports = [one for one in self.venue.reports if one.exec_type in EXECUTIONS and one.transact_time > after]
        begin = int(page or 0)
        end = begin + PER_PAGE
        listed = [self._update(one, UpdateSource.BACKFILL) for one in reports[begin:end]]
        return ExecutionPage(
            updates=tuple(listed),
            next_page=str(end) if end < len(reports) else None,
            through=listed[-1].transact_time if listed else None,
        )

    async def non_trades(self, *, after: datetime, page: str | None = None) -> NonTradePage:
        self._read()
        return NonTradePage(activities=(), next_page=None)

    async def position(self, symbol: str) -> Decimal:
        return (await self.positions()).held.get(symbol, Decimal(0))

    async def submitted_at(self, client_order_id: str) -> datetime | None:
        self._read()
        mine = (one.transact_time for one in self.venue.reports if one.cl_ord_id == client_order_id)
        return next(mine, None)

    async def positions(self) -> Positions:
        self._read()
        return Positions({symbol: quantity for symbol, quantity in self.venue.held.items() if quantity})

    async def quotes(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, Quote]:
        self._read()
        return {}  # This venue takes orders; nobody quotes here.

    async def last_trades(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, LastTrade]:
        self._read()
        return {}

    async def instrument(self, asset_type: AssetType, symbol: str) -> Instrument:
        self._read()
        return Instrument.ACTIVE if symbol in self.venue.held else Instrument.UNKNOWN

    async def clock(self) -> MarketClock:
        self._read()
        now = datetime.now(UTC)
        return MarketClock(is_open=not self.venue.is_closed, next_open=now, at=now)

    async def aclose(self) -> None:
        pass

    @asynccontextmanager
    async def trade_updates(self) -> AsyncIterator[AsyncIterator[Message]]:
        if not self.venue.logged_on:
            raise StreamLost("logged out")
        reports: asyncio.Queue[ExecutionReport | None] = asyncio.Queue()
        self.venue.heard_by.append(reports)
        try:
            yield self._hear(reports)
        finally:
            self.venue.heard_by.remove(reports)

    async def _hear(self, reports: asyncio.Queue[ExecutionReport | None]) -> AsyncIterator[Message]:
        while (report := await reports.get()) is not None:
            yield self._update(report, UpdateSource.STREAM)
        raise StreamLost("logged out")

    def _ask(self, message: Callable[[], Answer]) -> Answer | NoReport:
        if not self.venue.logged_on:
            return NotSent("logged out")
        if self.venue.throttled_s is not None:
            return NotAccepted("throttled", self.venue.throttled_s)
        answer = message()
        return Unanswered("no report in time") if self.venue.is_silent else answer

    def _read(self) -> None:
        """What every read begins with."""
        none = self._ask(lambda: None)
        if none is not None:
            retry_after_s = none.retry_after_s if isinstance(none, NotAccepted) else None
            about = FailureCause.UNKNOWN if isinstance(none, Unanswered) else FailureCause.CALLER
            raise BrokerUnavailable(none.reason, retry_after_s=retry_after_s, about=about)

    def _update(self, report: ExecutionReport, source: UpdateSource) -> BrokerUpdate:
        """One report is one update, whatever way it comes; so is one state of an order, whoever asks."""
        asked = report.exec_type == "I"
        said = ("order", report.cl_ord_id, report.ord_status, report.seq) if asked else ("report", report.exec_id)
        return BrokerUpdate(
            event_id=broker_update_id(NAME, self.account_id, *said),
            broker=NAME,
            account_id=self.account_id,
            symbol=report.symbol,
            client_order_id=report.cl_ord_id,
            exec_type=EXEC_TYPES[report.exec_type],
            side=SIDES[report.side],
            source=source,
            transact_time=report.transact_time,
            received_at=datetime.now(UTC),
            order_status=STATUSES[report.ord_status],
            order_quantity=report.order_qty,
            broker_order_id=report.order_id,
            exec_id=report.exec_id if report.exec_type in EXECUTIONS else None,
            exec_ref_id=report.exec_ref_id,
            cum_quantity=report.cum_qty,
            leaves_quantity=report.leaves_qty,
            last_quantity=report.last_qty,
            last_price=report.last_px,
            broker_seq=report.seq,
        )
