"""The broker's positions against ours: a difference is told, nothing is booked, no quantity is changed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident
from closeflow.domain.position.compare_with_broker import Compared, Pair, compare
from closeflow.domain.text import decimal_text
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.incidents import close_incidents_about, report_incidents
from closeflow.storage.positions import Holding, holdings

log = structlog.get_logger(__name__)

Over = tuple[IncidentKind, list[str], str]


@dataclass(slots=True)
class ComparePositions:
    """An incident per symbol that differs twice in a row while it is quiet, counted at every further comparison, closed
    when it agrees. A broker that does not answer changes nothing."""

    database: Database
    broker: Broker
    grace: timedelta
    _last: Compared = field(default_factory=Compared)

    async def once(self) -> int:
        """Returns how many symbols differ for the second time or more."""
        async with cycle_alone(self.database, "compare_positions") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        before = await self._holdings()
        try:
            theirs = await self.broker.positions()
        except BrokerUnavailable as error:
            log.warning("positions_not_listed", reason=error.reason)
            return 0
        after = await self._holdings()
        quiet = {
            symbol: held.quantity
            for symbol, held in after.items()
            if held.quiet and before.get(symbol) == held and theirs.tell_of(symbol)
        }
        found = self._last = compare(quiet, theirs.held, known=after.keys(), last=self._last)
        incidents, over = decide(self.broker.account_id, found, theirs.unreadable)
        closed = 0
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=incidents)
            for kind, subjects, resolution in over:
                closed += await close_incidents_about(tx, kind=kind, subjects=subjects, resolution=resolution)
        if incidents or closed:
            log.warning("positions_compared", differing=len(found.confirmed), closed=closed)
        return len(found.confirmed)

    async def _holdings(self) -> Mapping[str, Holding]:
        async with transaction(self.database) as tx:
            return await holdings(tx, account_id=self.broker.account_id, grace=self.grace)


def decide(account_id: str, found: Compared, unreadable: Set[str]) -> tuple[list[Incident], list[Over]]:
    """What a person is told of, and what is over: its kind, the subjects, and how it ended."""
    incidents = [_mismatch(account_id, symbol, pair) for symbol, pair in sorted(found.confirmed.items())]
    equal = [_subject(account_id, symbol) for symbol in found.equal]
    over: list[Over] = [(IncidentKind.POSITION_MISMATCH, equal, "the broker holds the same again")]
    if found.unknown_symbols:
        incidents.append(_unknown(account_id, found.unknown_symbols))
    if not found.unknown:
        over.append((IncidentKind.UNKNOWN_POSITIONS, [account_id], "the broker holds nothing that is unknown"))
    if unreadable:
        incidents.append(_unreadable(account_id, unreadable))
    else:
        over.append((IncidentKind.POSITION_NOT_READABLE, [account_id], "every position can be read"))
    return incidents, over


def _subject(account_id: str, symbol: str) -> str:
    return f"{account_id}/{symbol}"


def _mismatch(account_id: str, symbol: str, pair: Pair) -> Incident:
    ours, theirs = map(decimal_text, pair)
    detail = f"the broker holds {theirs} {symbol} for account {account_id}, we hold {ours}"
    return about(IncidentKind.POSITION_MISMATCH, detail, subject=_subject(account_id, symbol))


def _unknown(account_id: str, held: Mapping[str, Decimal]) -> Incident:
    listed = ", ".join(f"{decimal_text(quantity)} {symbol}" for symbol, quantity in sorted(held.items()))
    detail = f"the broker holds for account {account_id} what we have no position in: {listed}"
    return about(IncidentKind.UNKNOWN_POSITIONS, detail, subject=account_id)


def _unreadable(account_id: str, symbols: Set[str]) -> Incident:
    listed = ", ".join(symbol or "one without a symbol" for symbol in sorted(symbols))
    detail = f"positions that the broker lists for account {account_id} cannot be read, so not compared: {listed}"
    return about(IncidentKind.POSITION_NOT_READABLE, detail, subject=account_id)
