"""What the topics say of closes, folded in memory: the same records in any order and any repetition give the same rows.

Of a position only a higher version is applied, and the state is taken from the record, as the topic's contract asks. A
record that cannot be read is counted and changes nothing: the next event of its position has the whole state again.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, assert_never
from uuid import UUID

from closeflow.contracts import BrokerFillV1, ExecutionEvent, PositionEvent, SubmitOrder
from closeflow.domain.enums import UNFINISHED, BrokerStatus, ExecType, PositionStatus, RequestStatus, Side
from closeflow.domain.ids import parse_client_order_id

FINISHED_KEPT: Final = timedelta(hours=24)
"""How long a close that is over is counted."""
UNREADABLE_KEPT: Final = 50
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WITH_CLOSE: Final = frozenset({PositionStatus.CLOSING, PositionStatus.CLOSE_RETRYABLE})
Record = PositionEvent | SubmitOrder | ExecutionEvent | BrokerFillV1


@dataclass(slots=True)
class Close:
    """A close as the newest version of its position that names it says."""

    id: UUID
    position_id: int
    account: str
    symbol: str
    side: Side
    target: Decimal
    filled: Decimal
    status: RequestStatus
    reason: str | None
    accepted_at: datetime
    """When the first version was made that names it."""
    changed_at: datetime
    asked: Asked | None = None
    heard: Heard | None = None
    last_fill_at: datetime | None = None

    @property
    def unfinished(self) -> bool:
        """Whether it may still send orders."""
        return self.status in UNFINISHED

    @property
    def attempt(self) -> int:
        """The newest that was asked for, or that the broker spoke of."""
        return max(1, self.asked.attempt if self.asked else 1, self.heard.attempt if self.heard else 1)

    @property
    def moved_at(self) -> datetime:
        """When anything was last seen to happen to it."""
        return max(self.changed_at, _last(self.asked, self.heard, self.last_fill_at))


@dataclass(frozen=True, slots=True)
class Asked:
    """The newest attempt that was published for planning."""

    attempt: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """The broker's newest word about the newest order of a close that it spoke of."""

    attempt: int
    at: datetime
    what: ExecType
    status: BrokerStatus | None
    acknowledged: bool
    """Whether any word about this order carried the broker's own id of it."""
    reason: str | None


@dataclass(slots=True)
class Holding:
    """A position at the highest version that was read."""

    version: int
    account: str
    symbol: str
    status: PositionStatus
    quantity: Decimal
    exposure_unproven: bool
    active: UUID | None
    """Its close that is not over."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that could not be read, and where it lies. `position_id` is its key, where that is one."""

    topic: str
    partition: int
    offset: int
    at: datetime
    error_class: str
    reason: str
    position_id: int | None

    @property
    def place(self) -> str:
        """As people write it."""
        return f"{self.topic} {self.partition}/{self.offset}"


@dataclass(slots=True)
class _Said:
    """What other topics said of a close; it may come before the close itself."""

    asked: Asked | None = None
    heard: Heard | None = None
    last_fill_at: datetime | None = None


@dataclass(slots=True)
class ReadModel:
    """Everything that the page shows of the topics. `changes` rises with each record that changed anything."""

    holdings: dict[int, Holding] = field(default_factory=dict)
    closes: dict[UUID, Close] = field(default_factory=dict)
    open: dict[UUID, Close] = field(default_factory=dict)
    left: dict[int, Close] = field(default_factory=dict)
    """By position, the failed close after which it is still held and nothing was decided."""
    counts: Counter[tuple[str, RequestStatus]] = field(default_factory=Counter)
    """By account and status, of all closes that are kept."""
    latencies: list[tuple[datetime, str, float]] = field(default_factory=list)
    """Of the closes that were completed: when, of which account, and how many seconds after they were accepted."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """Records that could not be read, by topic."""
    unread: deque[Unreadable] = field(default_factory=lambda: deque(maxlen=UNREADABLE_KEPT))
    """The newest of them."""
    doubted: dict[int, Unreadable] = field(default_factory=dict)
    """By position, a record of it that could not be read and after which no version was applied."""
    applied: int = 0
    changes: int = 0
    _said: dict[UUID, _Said] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        """Take in one record of one of the four topics."""
        self.applied += 1
        match record:
            case PositionEvent():
                self._position(record)
            case SubmitOrder():
                self._asked(record)
            case ExecutionEvent():
                self._executed(record)
            case BrokerFillV1():
                self._heard(record)
            case _:
                assert_never(record)

    def refuse(self, record: Unreadable) -> None:
        """Count a record that cannot be read."""
        self.unreadable[record.topic] += 1
        self.unread.append(record)
        if record.position_id is not None:
            self.doubted[record.position_id] = record
        self.changes += 1

    def forget(self, now: datetime) -> None:
        """Drop the closes that have been over for longer than they are counted."""
        before = now - FINISHED_KEPT
        for close in [one for one in self.closes.values() if not one.unfinished and one.changed_at < before]:
            self.counts[close.account, close.status] -= 1
            del self.closes[close.id]
            self.changes += 1
        for close_id, said in [*self._said.items()]:
            if close_id not in self.closes and _last(said.asked, said.heard, said.last_fill_at) < before:
                del self._said[close_id]
        self.latencies = [one for one in self.latencies if one[0] >= before]

    def _position(self, event: PositionEvent) -> None:
        known = self.holdings.get(event.position_id)
        if known is not None and event.position_version <= known.version:
            return
        self.changes += 1
        self.doubted.pop(event.position_id, None)
        before = known.active if known is not None else None
        active = _active(event, before)
        if before is not None and before not in (active, event.close_request_id):
            self._end_unseen(before)
        self.holdings[event.position_id] = Holding(
            event.position_version,
            event.account_id,
            event.symbol,
            event.position_status,
            event.quantity,
            event.exposure_unproven,
            active,
        )
        if event.position_status is not PositionStatus.CLOSE_FAILED:
            self.left.pop(event.position_id, None)
        if event.close_request_id is not None:
            self._close(event, event.close_request_id)

    def _close(self, event: PositionEvent, close_id: UUID) -> None:
        if event.close_request_status is None or event.side is None or event.target_qty is None:
            return  # The topic's writers always give the three with the id.
        before = self.closes.get(close_id)
        said = self._said.setdefault(close_id, _Said())
        close = Close(
            id=close_id,
            position_id=event.position_id,
            account=event.account_id,
            symbol=event.symbol,
            side=event.side,
            target=event.target_qty,
            filled=event.filled_qty or Decimal(0),
            status=event.close_request_status,
            reason=event.reason,
            accepted_at=min(event.occurred_at, before.accepted_at) if before else event.occurred_at,
            changed_at=event.occurred_at,
            asked=said.asked,
            heard=said.heard,
            last_fill_at=said.last_fill_at,
        )
        self._put(before, close)
        if event.position_status is PositionStatus.CLOSE_FAILED and close.status is RequestStatus.FAILED:
            self.left[event.position_id] = close

    def _put(self, before: Close | None, close: Close) -> None:
        if before is not None:
            self.counts[before.account, before.status] -= 1
        self.counts[close.account, close.status] += 1
        self.closes[close.id] = close
        if close.unfinished:
            self.open[close.id] = close
        else:
            self.open.pop(close.id, None)
            completed = close.status is RequestStatus.COMPLETED
            if completed and (before is None or before.status is not RequestStatus.COMPLETED):
                seconds = (close.changed_at - close.accepted_at).total_seconds()
                self.latencies.append((close.changed_at, close.account, seconds))

    def _end_unseen(self, close_id: UUID) -> None:
        """At most one close of a position is active: an earlier one is over, though its end was not read."""
        close = self.open.pop(close_id, None)
        if close is not None:
            self.counts[close.account, close.status] -= 1
            del self.closes[close_id]

    def _asked(self, order: SubmitOrder) -> None:
        said = self._said.setdefault(order.close_request_id, _Said())
        if said.asked is None or order.attempt > said.asked.attempt:
            said.asked = Asked(order.attempt, order.requested_at)
            self._tell(order.close_request_id, said)

    def _executed(self, event: ExecutionEvent) -> None:
        if event.close_request_id is None:
            return
        said = self._said.setdefault(event.close_request_id, _Said())
        if said.last_fill_at is None or event.occurred_at > said.last_fill_at:
            said.last_fill_at = event.occurred_at
            self._tell(event.close_request_id, said)

    def _heard(self, update: BrokerFillV1) -> None:
        named = parse_client_order_id(update.client_order_id)
        if named is None:
            return  # Somebody else's order.
        close_id, attempt = named
        said = self._said.setdefault(close_id, _Said())
        known = said.heard
        if known is not None and attempt < known.attempt:
            return
        same = known is not None and attempt == known.attempt
        acknowledged = update.broker_order_id is not None or (same and known is not None and known.acknowledged)
        if same and known is not None and update.received_at < known.at:
            if acknowledged and not known.acknowledged:
                said.heard = Heard(attempt, known.at, known.what, known.status, acknowledged, known.reason)
                self._tell(close_id, said)
            return
        said.heard = Heard(
            attempt, update.received_at, update.exec_type, update.order_status, acknowledged, update.reason
        )
        self._tell(close_id, said)

    def _tell(self, close_id: UUID, said: _Said) -> None:
        close = self.closes.get(close_id)
        if close is not None:
            close.asked, close.heard, close.last_fill_at = said.asked, said.heard, said.last_fill_at
            self.changes += 1


def _active(event: PositionEvent, before: UUID | None) -> UUID | None:
    """The close of the position that is not over after this event, which may be about another one: a late fill."""
    if event.close_request_status in UNFINISHED:
        return event.close_request_id
    if event.position_status in _WITH_CLOSE and event.close_request_id != before:
        return before
    return None


def _last(asked: Asked | None, heard: Heard | None, filled_at: datetime | None) -> datetime:
    return max(asked.at if asked else _NEVER, heard.at if heard else _NEVER, filled_at or _NEVER)
