"""The kill switch and the limits as they were over time, and the invariants of sends and actions (18 to 21)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import text

from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch
from closeflow.storage.verify.book_invariants import sql_check

HALTED: Final = "halted"

BREACH: Final = sql_check(
    19,
    "breaches of a limit",
    "close_requests WHERE reason IN ('over_max_order_qty', 'over_max_order_notional')",
    """
    SELECT 'close request ' || r.id AS subject, 'failed by ' || r.reason || ', and no incident says so' AS detail
    FROM close_requests r
    WHERE r.reason IN ('over_max_order_qty', 'over_max_order_notional')
      AND r.created_at >= (SELECT incidents FROM whole) AND NOT EXISTS (
        SELECT FROM incidents i WHERE i.close_request_id = r.id AND i.kind = 'account_limit_breached')
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'was denied by ' || o.reject_code || ', and its send ' || s.n
           || ' may have left'
    FROM orders o JOIN order_sends s ON s.client_order_id = o.client_order_id AND s.kind = 'submit'
    WHERE o.reject_code IN ('over_max_order_qty', 'over_max_order_notional')
      AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')
    """,
)
# Leases and starts are by the database's clock. Answers carry their sender's: one outside its own lease was given by a
# clock that is off, and is not held against the later send's time; nor is one when the database's own went back.
CLOCK: Final = sql_check(
    20,
    "sends that followed another",
    "order_sends WHERE n > 1",
    """
    SELECT 'order ' || a.client_order_id AS subject,
           concat(b.kind, ' ', b.n, ' started at ', b.started_at, ' within the lease of ', a.n, ', which ends at ',
                  a.lease_until, ' and ', COALESCE('was answered at ' || a.answered_at, 'has no answer')) AS detail
    FROM order_sends a JOIN order_sends b USING (client_order_id, kind)
    WHERE b.n > a.n AND b.started_at >= a.started_at AND b.started_at < a.lease_until
      AND (a.answer IS NULL
           OR (a.answer NOT IN ('not_sent', 'not_accepted') AND a.answered_at > b.started_at
               AND a.answered_at BETWEEN a.started_at AND a.lease_until))
    UNION ALL
    SELECT 'order ' || a.client_order_id,
           concat('was sent again at ', b.started_at, ' although send ', a.n, ' was ', a.answer, ' at ', a.answered_at)
    FROM order_sends a JOIN order_sends b USING (client_order_id, kind)
    WHERE a.kind = 'submit' AND b.n > a.n AND a.answer IN ('accepted', 'rejected') AND a.answered_at < b.started_at
      AND a.answered_at BETWEEN a.started_at AND a.lease_until
    UNION ALL
    SELECT 'order ' || client_order_id, concat('its ', kind, ' ', n, ' has a lease that ends before it starts')
    FROM order_sends WHERE lease_until <= started_at
    """,
)
AUTHORISED: Final = sql_check(
    21,
    "close requests",
    "close_requests",
    """
    SELECT 'close request ' || r.id AS subject, 'nobody is named who asked for it' AS detail
    FROM close_requests r WHERE btrim(r.requested_by) = ''
    UNION ALL
    SELECT 'close request ' || r.id, concat('is of account ', r.account_id, '; position ', p.id, ' is of ',
           p.account_id)
    FROM close_requests r JOIN positions p ON p.id = r.position_id WHERE r.account_id <> p.account_id
    """,
)
OPERATOR_ACTIONS: Final = sql_check(
    21,
    "operator actions",
    "operator_actions",
    """
    SELECT concat_ws(' ', 'operator action', id) AS subject,
           concat(action, ' of ', subject, CASE WHEN btrim(by) = '' THEN ' by nobody' ELSE ' without a reason' END)
               AS detail
    FROM operator_actions WHERE btrim(by) = '' OR btrim(reason) = ''
    UNION ALL
    SELECT 'position adjustment ' || id, 'of position ' || position_id || ' by nobody, or without a reason'
    FROM position_adjustments WHERE btrim(by) = '' OR btrim(reason) = ''
    UNION ALL
    SELECT concat('switch ', c.scope), 'is ' || c.state || ' by nobody, or without a reason'
    FROM trading_controls c WHERE btrim(c.by) = '' OR btrim(c.reason) = ''
    """,
)

CONTROL_CHECKS: Final = (BREACH, CLOCK, AUTHORISED, OPERATOR_ACTIONS)

_SWITCHED: Final = text("""
    SELECT subject, before, after, at FROM operator_actions
    WHERE jsonb_typeof(after) = 'object' AND (after ? 'state' OR after ? 'submits_per_minute') ORDER BY id
""")
_SWITCHES: Final = text("SELECT scope, state, at FROM trading_controls")
_LIMITS: Final = text("""
    SELECT account_id, max_order_qty, max_order_notional, submits_per_minute FROM account_limits
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """`scope` is `global` or an account; `until` is None while it lasts."""

    scope: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What held for an account until `until`, or holds now; the older ones come first."""

    until: datetime | None
    max_order_quantity: Decimal
    max_order_notional: Decimal
    submits_per_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlsHistory:
    """Every halt, and each account's limits as they followed each other, from what operators did."""

    halts: tuple[Halt, ...]
    limits: Mapping[str, tuple[Limits, ...]]


async def load_controls_history(tx: Transaction) -> ControlsHistory:
    """From the operators' actions, and from what stands where no action says so."""
    actions = await fetch(tx, _SWITCHED)
    return ControlsHistory(
        halts=tuple(_halts(actions, await fetch(tx, _SWITCHES))),
        limits=_limits(actions, await fetch(tx, _LIMITS)),
    )


def _halts(actions: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[Halt]:
    halts: list[Halt] = []
    began: dict[str, datetime] = {}
    for action in actions:
        state, scope = action["after"].get("state"), action["subject"]
        if state == HALTED:
            began.setdefault(scope, action["at"])
        elif state is not None and scope in began:
            halts.append(Halt(scope=scope, since=began.pop(scope), until=action["at"]))
    began.update({row["scope"]: row["at"] for row in now if row["state"] == HALTED and row["scope"] not in began})
    return halts + [Halt(scope=scope, since=since, until=None) for scope, since in began.items()]


def _limits(actions: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Mapping[str, tuple[Limits, ...]]:
    found: defaultdict[str, list[Limits]] = defaultdict(list)
    for action in actions:
        if "submits_per_minute" in (action["before"] or {}):
            found[action["subject"]].append(_one(action["before"], until=action["at"]))
    for row in now:
        found[row["account_id"]].append(_one(row, until=None))
    return {account: tuple(limits) for account, limits in found.items()}


def _one(row: Mapping[str, Any], *, until: datetime | None) -> Limits:
    return Limits(
        until=until,
        max_order_quantity=Decimal(str(row["max_order_qty"])),
        max_order_notional=Decimal(str(row["max_order_notional"])),
        submits_per_minute=int(row["submits_per_minute"]),
    )
