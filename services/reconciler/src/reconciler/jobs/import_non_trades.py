"""What the broker did without a trade: expiries, assignments and exercises end positions, the rest a person is told.

Of the same list come the commissions and fees that the broker states by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable, Positions
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import CRITICAL, IncidentKind
from closeflow.domain.model import ZERO, Book
from closeflow.domain.operator.non_trade_activity import (
    Ends,
    NonTrade,
    Told,
    Verdict,
    Waits,
    apply_activity,
    concerns,
    spellings,
    waits_incident,
)
from closeflow.kafka.producer import Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.book.load import lock_books
from closeflow.storage.broker_cursors import advance_cursor, read_cursor
from closeflow.storage.core.engine import Database, StatementError, Transaction, database_now, retrying, transaction
from closeflow.storage.incidents import close_incidents_about, report_incidents
from closeflow.storage.non_trade_activities import Held, decided_activities, held_positions, record_activity
from closeflow.storage.operator_actions import act_as
from closeflow.storage.position_adjustments import insert_adjustment
from closeflow.unit_of_work import MoveRefused, apart_where_one_breaks, first_line, save
from reconciler.charges import ChargesTold, tell_charges

log = structlog.get_logger(__name__)

FEED: Final = "non-trade-activities"
BY: Final = "reconciler"


@dataclass(slots=True)
class ImportNonTrades:
    """Read the broker's activities that are no trades and decide about each that concerns us: once, but for one that
    waits, which is decided about again in every cycle.

    The cursor stands at the day of the newest, or of the oldest that waits; activities are read from a while before it,
    because a broker books them days later, with the day on which they happened.
    """

    database: Database
    broker: Broker
    producer: Producer
    look_back: timedelta
    pages: int
    _next: tuple[datetime, str] | None = None
    """Where a list that was longer than a cycle may read goes on: since when it is read, and the page."""
    _charges: ChargesTold = field(default_factory=ChargesTold)

    async def once(self) -> int:
        """Returns how many activities ended positions."""
        async with cycle_alone(self.database, "import_non_trades") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        try:
            listed = await self._listed()
            await tell_charges(self.database, self.producer, listed, self._charges, **self._key)
            concerned = await self._concerned(listed)
            theirs = await self.broker.positions() if concerned else Positions({})
        except BrokerUnavailable as error:
            log.warning("non_trades_not_read", reason=error.reason)
            return 0
        verdicts = [(one, await self._decide(one, theirs)) for one in concerned]
        waiting = [one for one, verdict in verdicts if isinstance(verdict, Waits)]
        await self._end_waits(set(listed) - set(waiting))
        await self._advance(listed, waiting)
        return sum(isinstance(verdict, Ends) for _, verdict in verdicts)

    async def _listed(self) -> list[NonTrade]:
        key = self._key
        async with transaction(self.database) as tx:
            cursor, now = await read_cursor(tx, **key, feed=FEED), await database_now(tx)
        after, page = self._next or (min(cursor or now, now) - self.look_back, None)
        self._next = None
        listed: list[NonTrade] = []
        for _ in range(self.pages):
            read = await self.broker.non_trades(after=after, page=page)
            listed += read.activities
            page = read.next_page
            if page is None:
                return listed
            self._next = (after, page)
        return listed

    async def _concerned(self, listed: Sequence[NonTrade]) -> list[NonTrade]:
        """Those that are not decided and may have changed what we hold."""
        symbols = {name for one in listed if one.symbol is not None for name in spellings(one.symbol)}
        async with transaction(self.database) as tx:
            done = await decided_activities(tx, **self._key, ids=[one.activity_id for one in listed])
            held = await held_positions(tx, account_id=self.broker.account_id, symbols=symbols)
        return [
            one
            for one in dict.fromkeys(listed)
            if one.activity_id not in done and concerns(one, [position.opened for position in _of(one, held)])
        ]

    async def _decide(self, activity: NonTrade, theirs: Positions) -> Verdict:
        apply = partial(self._apply, theirs=theirs)
        (verdict,) = await apart_where_one_breaks([activity], apply, alone=self._report)
        if isinstance(verdict, Ends):
            log.warning("positions_ended_by_activity", activity_id=activity.activity_id, ending=verdict.ending)
        return verdict

    async def _report(self, activity: NonTrade, error: StatementError | MoveRefused) -> Verdict:
        log.error("activity_not_applied", activity_id=activity.activity_id, exc_info=error)
        verdict = Waits(f"it cannot be written: {first_line(error)}")
        incident = waits_incident(activity, verdict.why, subject=self._subject(activity))
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=[replace(incident, severity=CRITICAL)])
        return verdict

    async def _apply(self, activities: Sequence[NonTrade], *, theirs: Positions) -> Verdict:
        (activity,) = activities  # Each is decided in what the one before it left.
        return await retrying(self.database, partial(self._save, activity=activity, theirs=theirs))

    async def _save(self, tx: Transaction, *, activity: NonTrade, theirs: Positions) -> Verdict:
        symbols = spellings(activity.symbol) if activity.symbol is not None else ()
        held = await held_positions(tx, account_id=self.broker.account_id, symbols=symbols)
        found = await lock_books(tx, position_ids=[one.position_id for one in held])
        books = {key: book for key, book in found.items() if book.position.quantity != ZERO}
        subject, at_broker = self._subject(activity), _at_broker(theirs, [*books.values()])
        now = await database_now(tx)
        result = apply_activity(activity, books, subject=subject, at_broker=at_broker, by=BY, now=now)
        if isinstance(result.verdict, Ends | Told):
            outcome = "ended" if isinstance(result.verdict, Ends) else "told"
            await record_activity(tx, **self._key, activity=activity, outcome=outcome)
        for position_id, gone in result.adjustments.items():
            await act_as(tx, by=BY, reason=gone.reason)
            await insert_adjustment(tx, position_id=position_id, adjustment=gone, at=result.now, source="broker")
        await save(tx, result)
        return result.verdict

    async def _end_waits(self, others: Iterable[NonTrade]) -> None:
        async with transaction(self.database) as tx:
            await close_incidents_about(
                tx,
                kind=IncidentKind.NON_TRADE_ACTIVITY_WAITS,
                subjects=[self._subject(one) for one in others],
                resolution="it waits no longer",
            )

    async def _advance(self, listed: Sequence[NonTrade], waiting: Sequence[NonTrade]) -> None:
        days = [one.day for one in (waiting or listed) if one.day is not None]
        if days:
            position = _start_of(min(days) if waiting else max(days))
            broker, account = self.broker.name, self.broker.account_id
            async with transaction(self.database) as tx:
                await advance_cursor(tx, broker=broker, account_id=account, feed=FEED, position=position)

    @property
    def _key(self) -> dict[str, str]:
        return {"broker": self.broker.name, "account_id": self.broker.account_id}

    def _subject(self, activity: NonTrade) -> str:
        return f"{self.broker.account_id}/{activity.activity_id}"


def _of(activity: NonTrade, held: Sequence[Held]) -> list[Held]:
    names = spellings(activity.symbol) if activity.symbol is not None else ()
    return [one for one in held if one.symbol in names]


def _at_broker(theirs: Positions, books: Sequence[Book]) -> Decimal | None:
    symbols = {book.position.symbol for book in books}
    if not all(theirs.tell_of(symbol) for symbol in symbols):
        return None
    return sum((theirs.held.get(symbol, ZERO) for symbol in symbols), ZERO)


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
