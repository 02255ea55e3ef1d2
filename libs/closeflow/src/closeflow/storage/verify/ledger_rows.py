"""The ledger of executions as it is compared with the accounting events and with the broker's own list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from closeflow.domain.model import ExecKind, Side
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch
from closeflow.storage.verify.book_invariants import COMMON, SNAPSHOT_AT

_AT: Final = text(f"SELECT {SNAPSHOT_AT}")
_ACCOUNTS: Final = text("SELECT DISTINCT account_id FROM orders ORDER BY account_id")
_FIRST_ORDER: Final = text("SELECT min(created_at) FROM orders")
# Every row of a chain was booked between its `since` and its `until`.
_ROWS: Final = text(f"""
    {COMMON}
    SELECT e.broker, e.account_id, e.exec_id, e.kind, COALESCE(n.names, e.ref_exec_id) AS replaces, e.client_order_id,
           o.broker_order_id, e.position_id, p.symbol, p.multiplier, p.currency, e.side, e.quantity, e.price,
           e.cum_qty AS cum_quantity, e.occurred_at, f.stands IS NOT NULL AS stands,
           GREATEST(o.stated_cum_qty, o.quantity) AS at_most, COALESCE(c.first_at, e.recorded_at) AS since,
           COALESCE(c.last_at, e.recorded_at) AS until,
           ARRAY(SELECT a.alias_id FROM execution_aliases a WHERE a.alias_id <> e.exec_id
                 AND (a.broker, a.account_id, a.exec_id) = (e.broker, e.account_id, e.exec_id)) AS aliases
    FROM executions e JOIN positions p ON p.id = e.position_id JOIN orders o USING (client_order_id)
    LEFT JOIN named n ON (n.broker, n.account_id, n.exec_id) = (e.broker, e.account_id, e.exec_id)
    LEFT JOIN (SELECT broker, account_id, exec_id, first_at,
                      max(recorded_at) OVER (PARTITION BY broker, account_id, trade) AS last_at FROM chain) c
        ON (c.broker, c.account_id, c.exec_id) = (e.broker, e.account_id, e.exec_id)
    LEFT JOIN effective f ON (f.broker, f.account_id, f.stands) = (e.broker, e.account_id, e.exec_id)
    ORDER BY e.occurred_at, e.recorded_at, e.exec_id
""")  # noqa: S608 (a constant of ours)
# own: what the report of an execution states, under the name by which it is booked; the first to say counts. It goes
# with the row that stands: as that states it itself, else as what it corrects does. Any other charge stands by itself.
_CHARGES: Final = text(f"""
    {COMMON},
    of_execution AS (
        SELECT c.*, COALESCE(a.exec_id, c.exec_id) AS booked
        FROM execution_charges c LEFT JOIN execution_aliases a
            ON (a.broker, a.account_id, a.alias_id) = (c.broker, c.account_id, c.exec_id)
    ),
    own AS (
        SELECT DISTINCT ON (broker, account_id, booked) * FROM of_execution WHERE charge_id = exec_id
        ORDER BY broker, account_id, booked, recorded_at, charge_id
    ),
    corrects AS (
        SELECT broker, account_id, stands, stands AS exec_id, 0 AS up FROM effective
        UNION ALL
        SELECT c.broker, c.account_id, c.stands, n.names, c.up + 1
        FROM corrects c JOIN named n ON (n.broker, n.account_id, n.exec_id) = (c.broker, c.account_id, c.exec_id)
    ),
    charges AS (
        (SELECT DISTINCT ON (c.broker, c.account_id, c.stands) o.client_order_id, o.commission, o.fees
         FROM corrects c JOIN own o ON (o.broker, o.account_id, o.booked) = (c.broker, c.account_id, c.exec_id)
         ORDER BY c.broker, c.account_id, c.stands, c.up)
        UNION ALL
        SELECT f.client_order_id, f.commission, f.fees
        FROM of_execution f JOIN executions e
            ON (e.broker, e.account_id, e.exec_id) = (f.broker, f.account_id, f.booked)
        WHERE f.charge_id <> f.exec_id
    )
    SELECT l.client_order_id, COALESCE(s.commission, 0) AS commission, COALESCE(s.fees, 0) AS fees, l.until
    FROM (SELECT client_order_id, max(recorded_at) AS until FROM execution_charges GROUP BY 1) l
    LEFT JOIN (SELECT client_order_id, sum(commission) AS commission, sum(fees) AS fees FROM charges GROUP BY 1) s
        USING (client_order_id)
""")  # noqa: S608 (a constant of ours)
_ORDERS: Final = text("""
    SELECT o.client_order_id, o.broker_order_id, o.account_id, p.symbol, p.multiplier, p.currency, o.side, o.created_at
    FROM orders o JOIN positions p ON p.id = o.position_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """A row of the ledger. `replaces`: the row that a bust or correction names, under the name it is booked by.
    `stands`: it is what a trade is now. `at_most`: how much its order may have executed as far as the broker says.
    `since` and `until`: when the first and the last row were booked of those that name each other."""

    broker: str
    account_id: str
    exec_id: str
    kind: ExecKind
    replaces: str | None
    client_order_id: str
    broker_order_id: str | None
    position_id: int
    symbol: str
    multiplier: Decimal
    currency: str
    side: Side
    quantity: Decimal | None
    price: Decimal | None
    cum_quantity: Decimal | None
    occurred_at: datetime
    stands: bool
    at_most: Decimal
    since: datetime
    until: datetime
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it for ever: broker, account and execution id."""
        return (self.broker, self.account_id, self.exec_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTerms:
    """What a fill of an order is worth, whether or not it is booked."""

    client_order_id: str
    broker_order_id: str | None
    account_id: str
    symbol: str
    multiplier: Decimal
    currency: str
    side: Side
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCharges:
    """What an order's executions that stand have been charged in all, in its position's currency; `until`: when the
    last of its charges was booked."""

    client_order_id: str
    commission: Decimal
    fees: Decimal
    until: datetime


@dataclass(frozen=True, slots=True)
class Ledger:
    """All as it was at `at`, when the snapshot was opened. `accounts` are those that ever had an order."""

    at: datetime
    rows: tuple[LedgerRow, ...]
    orders: tuple[OrderTerms, ...]
    accounts: tuple[str, ...] = ()
    charges: tuple[OrderCharges, ...] = ()


async def load_ledger(tx: Transaction) -> Ledger:
    """Every execution, in the caller's snapshot, the oldest first."""
    rows = tuple(
        LedgerRow(
            **{
                **row,
                "kind": ExecKind(row["kind"]),
                "side": Side(row["side"]),
                "aliases": tuple(sorted(row["aliases"])),
            }
        )
        for row in await fetch(tx, _ROWS)
    )
    orders = tuple(OrderTerms(**{**row, "side": Side(row["side"])}) for row in await fetch(tx, _ORDERS))
    charges = tuple(OrderCharges(**row) for row in await fetch(tx, _CHARGES))
    accounts = tuple((await tx.execute(_ACCOUNTS)).scalars())
    return Ledger((await tx.execute(_AT)).scalar_one(), rows, orders, accounts, charges)


async def load_first_order_at(tx: Transaction) -> datetime | None:
    """When the first of all orders was made."""
    found: datetime | None = (await tx.execute(_FIRST_ORDER)).scalar_one()
    return found
