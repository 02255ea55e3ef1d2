"""Who sends orders: the rows of `senders`, which say that an instance lives or is known to be gone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, change, fetch

_REGISTER: Final = text("""
    INSERT INTO senders (instance_id, host, pid, runs_in, process_started, says_it_closes, started_at, last_seen_at)
    VALUES (:instance_id, :host, :pid, :runs_in, :process_started, :says_it_closes, closeflow_now(), closeflow_now())
""")


_SEEN: Final = text("UPDATE senders SET last_seen_at = closeflow_now() WHERE instance_id = :instance_id")
_EXITED: Final = text("UPDATE senders SET exited_at = closeflow_now() WHERE instance_id = :instance_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """One life of one process that sends."""

    instance_id: str
    host: str
    pid: int
    runs_in: str | None
    """What a process has to share to tell whether `pid` is this one; None where that is not known."""
    process_started: int | None
    """When the kernel says that the process began, which tells it from a later one with its `pid`."""
    says_it_closes: bool
    """Whether each of its orders says that it closes."""


async def register_sender(tx: AsyncConnection, *, sender: Sender) -> None:
    """Say that this instance is there, before it claims its first send."""
    await change(tx, _REGISTER, asdict(sender))


async def sender_seen(tx: AsyncConnection, *, instance_id: str) -> None:
    """Write down that the instance lives, by the database's clock."""
    await change(tx, _SEEN, {"instance_id": instance_id})


async def sender_exited(tx: AsyncConnection, *, instance_id: str) -> None:
    """Said by the sender itself, once nothing of it can reach the wire any more."""
    await change(tx, _EXITED, {"instance_id": instance_id})


_SENDERS: Final = text("""
    SELECT w.instance_id, w.host, w.pid, w.started_at, w.last_seen_at, w.exited_at,
           closeflow_now() - w.last_seen_at AS silent_for,
           (SELECT count(*) FROM order_sends s WHERE s.sender = w.instance_id AND s.answered_at IS NULL) AS unanswered
    FROM senders w
    WHERE CAST(:instance_id AS text) IS NULL OR w.instance_id = :instance_id
    ORDER BY w.last_seen_at DESC LIMIT :limit
""")


_CONFIRM_EXIT: Final = text("""
    UPDATE senders SET exited_at = closeflow_now() WHERE instance_id = :instance_id AND exited_at IS NULL
""")


async def list_senders(tx: Transaction, *, instance_id: str | None = None, limit: int = 1) -> list[Row]:
    """Who sends or sent, the one last seen first; `silent_for` is a timedelta by the database's clock."""
    return await fetch(tx, _SENDERS, {"instance_id": instance_id, "limit": limit})


async def confirm_exit(tx: Transaction, *, instance_id: str) -> None:
    """That a sender's process is gone, which somebody has seen where it ran."""
    await change(tx, _CONFIRM_EXIT, {"instance_id": instance_id})
