"""A venue in memory that answers as FIX 4.4 has it. A message is a call, and its flags are what goes wrong with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

UNKNOWN_SYMBOL, EXCHANGE_CLOSED, UNKNOWN_ORDER, DUPLICATE_ORDER = 1, 2, 5, 6
"""OrdRejReason (103)."""
TOO_LATE, UNKNOWN_TO_CANCEL = 0, 1
"""CxlRejReason (102)."""
LIVE: Final = ("0", "1")
"""OrdStatus (39) under which what is left may still fill."""
ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReport:
    """35=8, also the venue's record of an order: its last report. `seq` counts what happened to orders, because
    MsgSeqNum (34) begins anew with every session."""

    order_id: str  # 37
    cl_ord_id: str  # 11
    exec_type: str  # 150
    ord_status: str  # 39
    symbol: str  # 55
    side: str  # 54
    order_qty: Decimal  # 38
    transact_time: datetime = field(default_factory=lambda: datetime.now(UTC))  # 60
    cum_qty: Decimal = ZERO  # 14
    leaves_qty: Decimal = ZERO  # 151
    exec_id: str = "0"  # 17
    exec_ref_id: str | None = None  # 19
    last_qty: Decimal | None = None  # 32
    last_px: Decimal | None = None  # 31
    ord_rej_reason: int | None = None  # 103
    seq: int = 0


@dataclass(frozen=True, slots=True)
class CancelReject:
    """35=9."""

    cxl_rej_reason: int


@dataclass(slots=True)
class Venue:
    """The orders and positions of one account, and what goes wrong with it."""

    held: dict[str, Decimal] = field(default_factory=lambda: {"AAPL": Decimal(500)})
    """By symbol; no other symbol is known here."""
    orders: dict[str, ExecutionReport] = field(default_factory=dict)
    reports: list[ExecutionReport] = field(default_factory=list)
    """What happened to orders, oldest first."""
    heard_by: list[asyncio.Queue[ExecutionReport | None]] = field(default_factory=list)
    """Sessions; None ends one."""
    logged_on: bool = True
    is_closed: bool = False
    fills_at_once: bool = False
    is_silent: bool = False
    """It does what it is asked and reports nothing of it."""
    throttled_s: float | None = None
    """It takes no message now (35=j), and says for how long."""

    def enter(self, *, cl_ord_id: str, symbol: str, side: str, order_qty: Decimal) -> ExecutionReport:
        """35=D."""
        new = ExecutionReport(
            order_id=f"v-{len(self.orders) + 1}",
            cl_ord_id=cl_ord_id,
            exec_type="0",
            ord_status="0",
            symbol=symbol,
            side=side,
            order_qty=order_qty,
            leaves_qty=order_qty,
        )
        refused = {
            DUPLICATE_ORDER: cl_ord_id in self.orders,
            UNKNOWN_SYMBOL: symbol not in self.held,
            EXCHANGE_CLOSED: self.is_closed,
        }
        for reason, holds in refused.items():
            if holds:
                return replace(new, exec_type="8", ord_status="8", ord_rej_reason=reason, leaves_qty=ZERO)
        report = self._happened(new)
        if self.fills_at_once:
            self.fill(cl_ord_id, order_qty)
        return report

    def cancel(self, *, orig_cl_ord_id: str, symbol: str, side: str) -> ExecutionReport | CancelReject:
        """35=F."""
        order = self.orders.get(orig_cl_ord_id)
        if order is None or (order.symbol, order.side) != (symbol, side):
            return CancelReject(UNKNOWN_TO_CANCEL)
        if order.ord_status not in LIVE:
            return CancelReject(TOO_LATE)
        return self._happened(order, exec_type="4", ord_status="4", leaves_qty=ZERO)

    def status(self, *, cl_ord_id: str) -> ExecutionReport:
        """35=H."""
        order = self.orders.get(cl_ord_id)
        if order is None:
            unknown = ExecutionReport(
                order_id="NONE", cl_ord_id=cl_ord_id, exec_type="I", ord_status="8", symbol="", side="", order_qty=ZERO
            )
            return replace(unknown, ord_rej_reason=UNKNOWN_ORDER)
        return replace(order, exec_type="I", last_qty=None, last_px=None, exec_ref_id=None)

    def fill(self, cl_ord_id: str, quantity: Decimal) -> ExecutionReport:
        """Of an order's rest, at 100."""
        return self._execute(self.orders[cl_ord_id], quantity, exec_type="F", last_qty=quantity, last_px=Decimal(100))

    def bust(self, trade: ExecutionReport) -> ExecutionReport:
        """Take a fill back."""
        assert trade.last_qty is not None
        return self._execute(self.orders[trade.cl_ord_id], -trade.last_qty, exec_type="H", exec_ref_id=trade.exec_id)

    def log_out(self) -> None:
        """End every session; orders go on."""
        self.logged_on = False
        for listener in self.heard_by:
            listener.put_nowait(None)

    def _execute(self, order: ExecutionReport, change: Decimal, **tags: Any) -> ExecutionReport:
        cum, leaves = order.cum_qty + change, order.leaves_qty - change
        self.held[order.symbol] += change if order.side == "1" else -change
        status = "2" if leaves == 0 else "1" if cum else "0"
        return self._happened(order, ord_status=status, cum_qty=cum, leaves_qty=leaves, **tags)

    def _happened(self, order: ExecutionReport, **tags: Any) -> ExecutionReport:
        seq = len(self.reports) + 1
        nothing = {"last_qty": None, "last_px": None, "exec_ref_id": None}
        report = replace(order, **{**nothing, **tags}, seq=seq, exec_id=f"e-{seq}", transact_time=datetime.now(UTC))
        self.orders[order.cl_ord_id] = report
        self.reports.append(report)
        for listener in self.heard_by:
            listener.put_nowait(report)
        return report
