"""The evidence about orders that the broker does not find (rule R6), added to their incidents for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable, ExecutionPage
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import ZERO, BrokerUpdate
from closeflow.domain.position.compare_with_broker import agree
from closeflow.domain.text import decimal_text, time_text
from closeflow.kafka.producer import Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, database_now, transaction
from closeflow.storage.incidents import AbsentOrder, absent_orders, add_evidence
from closeflow.storage.positions import Holding, holdings
from reconciler.jobs.ask_quiet_orders import publish

log = structlog.get_logger(__name__)

CLOCKS_APART: Final = timedelta(hours=2)
"""How far the broker's clock may be behind the one that dated a send."""


@dataclass(frozen=True, slots=True)
class AssembleEvidence:
    """What rule R6 asks for after the not-founds: no execution listed since the send, and the broker holding what we
    expect. It is put into the incident for the person who decides; only a complete answer is."""

    database: Database
    broker: Broker
    producer: Producer
    budget: int
    pages: int

    async def once(self) -> int:
        """Returns about how many orders evidence was written."""
        async with cycle_alone(self.database, "assemble_evidence") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        account = self.broker.account_id
        async with transaction(self.database) as tx:
            absent = await absent_orders(tx, account_id=account, kind=IncidentKind.ORDER_NOT_FOUND, budget=self.budget)
            ours = await holdings(tx, account_id=account, grace=timedelta())
            now = await database_now(tx)
        if not absent:
            return 0
        since = min(one.sent_at for one in absent) - CLOCKS_APART
        try:
            executions = await self._executions(since)
            theirs = await self.broker.positions()
        except BrokerUnavailable as error:
            log.warning("evidence_not_assembled", reason=error.reason)
            return 0
        if isinstance(executions, str):
            log.warning("evidence_not_assembled", reason=executions)
            return 0
        if not executions.is_whole:
            log.warning("executions_left_out", activity_ids=executions.left_out)
            absent = [one for one in absent if executions.tell_of(one.symbol)]
        wanted = {one.client_order_id for one in absent}
        listed = [one for one in executions.updates if one.client_order_id in wanted]
        await publish(self.producer, listed)  # The broker has it after all.
        told = [one for one in absent if theirs.tell_of(one.symbol)]
        evidence = {one.incident_id: _evidence(one, listed, since, ours, theirs.held, at=now) for one in told}
        async with transaction(self.database) as tx:
            await add_evidence(tx, evidence=evidence)
        return len(evidence)

    async def _executions(self, after: datetime) -> ExecutionPage | str:
        """All of them as one page, or why it cannot be said that they are all."""
        found = ExecutionPage(updates=(), next_page=None)
        page = None
        for _ in range(self.pages):
            read = await self.broker.executions(after=after, page=page)
            found += read
            page = read.next_page
            if page is None:
                return found
        return f"more than {self.pages} pages of executions"


def _evidence(
    order: AbsentOrder,
    listed: Sequence[BrokerUpdate],
    since: datetime,
    ours: Mapping[str, Holding],
    theirs: Mapping[str, Decimal],
    *,
    at: datetime,
) -> dict[str, object]:
    expected = ours[order.symbol].quantity if order.symbol in ours else ZERO
    held = theirs.get(order.symbol, ZERO)
    return {
        "assembled_at": time_text(at),
        "executions_listed": sum(one.client_order_id == order.client_order_id for one in listed),
        "listed_since": time_text(since),
        "position_at_broker": decimal_text(held),
        "position_expected": decimal_text(expected),
        "position_agrees": agree(expected, held),
    }
